"""What flows while items run, as far as no machine's clocks decide it: bytes, operations and elements, by item and by segment of the step."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from membound.cost import collectives
from membound.trace.schema import KIND

if TYPE_CHECKING:
    from membound.replay.workload import Workload

Floats = npt.NDArray[np.float64]

FLOWS: Final = ("read", "written", "cached", "flops", "tensor_flops", "elements", "h2d", "d2h", "nvlink", "dimms", "cores")
"""What flows: HBM bytes, bytes that stay within the L2, operations (all, and those of 16-bit products), elements of kernels without any, copied
bytes, bytes sent to other GPUs, DIMM bytes, seconds in which the host's threads work on tensors."""


@dataclass(frozen=True)
class Flows:
    """Those of a Workload: all of `FLOWS` but the last, whose seconds a machine decides."""

    work: Workload

    @functools.cached_property
    def by_item(self) -> Floats:
        """[K, FLOWS - 1, n]"""
        work, kind = self.work, self.work.program.kind
        tensor = (work.flops > 0) & work.in_tensor_cores[:, None]
        amounts = (
            work.read, work.written, work.cached, work.flops, np.where(tensor, work.flops, 0.0), work.elements, _where(kind, "copy_h2d", work.moved),
            _where(kind, "copy_d2h", work.moved), self._sent(), work.dimm_bytes,
        )  # fmt: skip
        return np.stack([each.T for each in amounts], axis=1)

    @functools.cached_property
    def by_segment(self) -> Floats:
        """[segments, FLOWS - 1, K]"""
        return np.ascontiguousarray(np.moveaxis(np.add.reduceat(self.by_item, self.work.program.segments, axis=2), 0, 2).swapaxes(0, 1))

    def _sent(self) -> Floats:
        """Bytes that a rank sends in each collective; [n, K]."""
        program, moved = self.work.program, self.work.moved
        names, chosen = program.trace.header.ops, np.flatnonzero(program.kind == KIND["collective"])
        result = np.zeros(moved.shape)
        ops = [names[code] for code in program.op[chosen]]
        for k in range(moved.shape[1]):
            result[chosen, k] = collectives.sent(ops, moved[chosen, k], program.ranks[chosen].astype(np.float64))
        return result


def _where(kind: npt.NDArray[np.int64], name: str, values: Floats) -> Floats:
    return np.where((kind == KIND[name])[:, None], values, 0.0)
