"""What the items of a Program that are no kernels ask of the links and the host: the same on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from membound.replay.operands import Operands
from membound.replay.program import Program
from membound.trace.schema import KIND, PLACE

Bools = npt.NDArray[np.bool_]
Column = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

_LOCKED: Final = (PLACE["pinned"],)
_ON_HOST: Final = (PLACE["host"], *_LOCKED)


@dataclass(frozen=True)
class Transfers:
    """Facts of m items, [m] each."""

    copies: Bools
    collectives: Bools
    cores: Bools
    """Whether the host's cores work on tensors."""
    drives: Bools
    """Whether its drives do."""
    ops: npt.NDArray[Any]
    """Names of the operators."""
    pinned: Bools
    """Whether all of an item's operands on the host are page-locked."""
    nbytes: Floats
    """Bytes that an item reads and writes of host memory."""
    locked_bytes: Floats
    """Of them, those in page-locked memory."""
    locked: float
    """Bytes of all page-locked storages that the step touches."""

    @classmethod
    def of(cls, program: Program, items: Column) -> Transfers:
        """Those of `items`."""
        kind, names, operands, count = program.kind[items], program.trace.header.ops, program.operands, len(program)
        ops = np.array([names[code] for code in program.op[items]], np.str_)
        host, drives = kind == KIND["host"], np.char.startswith(ops, "nvme.")
        copies = np.isin(kind, [KIND["copy_h2d"], KIND["copy_d2h"]])
        pageable = np.bincount(operands.item, operands.place[operands.storage] == PLACE["host"], count)
        nbytes, locked_bytes = (_bytes_in(places, operands, count)[items] for places in (_ON_HOST, _LOCKED))
        touched = np.unique(operands.storage)
        locked = float(operands.size[touched][operands.place[touched] == PLACE["pinned"]].sum())
        return cls(copies, kind == KIND["collective"], host & ~drives, host & drives, ops, pageable[items] == 0, nbytes, locked_bytes, locked)


def _bytes_in(places: tuple[int, ...], operands: Operands, items: int) -> Floats:
    """Bytes that each item reads and writes of the given kinds of memory; [n]."""
    there = np.isin(operands.place[operands.storage], places)
    return np.bincount(operands.item, np.where(there, operands.nbytes[0], 0), items).astype(np.float64)
