"""Rows of measured kernels as the laws take them: what each operator reads and writes, and what of it crosses HBM.

What is larger than the L2 counts as measured warm, called again and again: all of it comes from HBM. What is smaller counts cold, once after a flush
that leaves the L2 full of lines to be written back: every byte comes from HBM and pushes such a line out; less what an empty pair of events takes.
Of what autograd launches only warm times count: in the cold ones the host is late.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from membound.cost.calibrated import Calibrated
from membound.cost.law import Kernels
from membound.cost.laws import LAWS, law_of
from membound.spec.machine import Gpu
from membound.study.calibration.calls import Call, Row, call, number

# Timed through torch.autograd.grad, whose host work an event pair around one call sees.
_AUTOGRAD: Final = (
    "aten.convolution_backward", "aten.cudnn_batch_norm_backward", "aten.native_layer_norm_backward", "aten.nll_loss_backward", "aten._cudnn_rnn"
)  # fmt: skip
_SIZE: Final = {"bfloat16": 2, "float16": 2, "float32": 4, "int64": 8, "uint8": 1, "bool": 1}


@dataclass(frozen=True)
class Sample:
    """A measured kernel that a law with rates in the profile prices."""

    row: Row
    law: Calibrated
    kernels: Kernels
    """The one kernel; [1]."""
    seconds: float
    large: bool
    """Whether its operands are larger than the L2."""
    cold: bool
    """Whether the L2 was flushed before."""

    @property
    def rate(self) -> str:
        """Name of its rate in the profile."""
        return self.law.rates(self.kernels)[0]


def empty_pair(rows: Iterable[Row]) -> float:
    """s that an empty pair of events takes; 0 where it was not measured."""
    return next((number(row, "seconds_cold") or 0.0 for row in rows if row["op"] == "nothing"), 0.0)


def samples(rows: Iterable[Row], gpu: Gpu) -> Iterator[Sample]:
    """The rows that laws with rates in the profile price, as they ran on `gpu`."""
    rows = list(rows)
    empty = empty_pair(rows)
    for row in rows:
        one = call(row)
        law = LAWS[law_of(one.op)] if one else None
        if one is None or not isinstance(law, Calibrated) or law is LAWS[-1]:
            continue
        large = float(row["bytes"]) > gpu.l2
        cold = not large and not row["op"].startswith(_AUTOGRAD)
        seconds = (number(row, "seconds_cold" if cold else "seconds_warm") or 0.0) - (empty if cold else 0.0)
        if seconds > 0:
            yield Sample(row, law, _kernels(one, row, gpu, cold), seconds, large, cold)


def _kernels(one: Call, row: Row, gpu: Gpu, cold: bool) -> Kernels:
    touched = float(row["bytes"])
    written = float(sum(_SIZE[dtype] * math.prod(dims) for dtype, dims in one.writes))
    if cold:
        # Every byte that comes in pushes a line of the flush out, until what the L2 holds of those is gone.
        read, back = max(touched - written, 0.0), max(min(touched, gpu.l2 / 2), written)
    else:
        missed = min(max(2 * touched / gpu.l2 - 1, 0.0), 1.0)
        read, back = missed * max(touched - written, 0.0), missed * min(written, touched)
    flops, came, went, all_bytes = (np.array([value]) for value in (number(row, "flops") or 0.0, read, back, touched))
    return Kernels((one.op,), (one.reads,), (one.writes,), flops, came, went, all_bytes, even=np.array([one.even]))
