"""HBM bytes of each item of a Program on a GPU: its operands, through the L2."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.l2 import DEATH, Accesses, hbm_traffic
from membound.replay.program import Program
from membound.trace.schema import KIND, PLACE

Column = npt.NDArray[np.int64]

# A storage larger than any cache holds many parameters side by side, as DeepSpeed's flat buffers do: its parts are told apart by where they
# begin, B.
_PARTED: Final = 256 << 20
# Storage and offset in one number, sorted by storage: offsets below 16 TB, storages below 500,000.
_PART_BITS: Final = 44


def traffic(program: Program, length: int, capacity: float) -> tuple[Column, Column]:
    """Bytes read from and written to HBM by each item [n], where rows have `length` tokens and the L2 holds `capacity` bytes.

    Copies between host and GPU and collectives go through as well: what they bring or take is HBM traffic.
    """
    return hbm_traffic(accesses(program, length), len(program), capacity)


def accesses(program: Program, length: int) -> Accesses:
    """Reads and writes of GPU memory in program order, with the deaths of storages between them."""
    operands = program.operands
    touched = (operands.place[operands.storage] == PLACE["gpu"]) & np.isin(program.kind[operands.item], _REACHING)
    nbytes = operands.nbytes_at(length)[touched]
    item, write, storage = operands.item[touched], operands.write[touched], operands.storage[touched]
    part = np.where(operands.size[storage] > _PARTED, operands.offset[touched], -1)
    keys, found = np.unique(storage << _PART_BITS | (part + 1), return_inverse=True)
    block = found.astype(np.int64)
    dead_item, dead_block = _deaths(program, keys >> _PART_BITS)
    # Deaths come before the item that follows them: the allocator may give the memory to it.
    where = np.concatenate([dead_item * 2, item * 2 + 1])
    order = np.argsort(where, kind="stable")
    joined = [
        np.concatenate([dead_item, item]), np.concatenate([np.full(len(dead_item), DEATH), write]),
        np.concatenate([dead_block, block]), np.concatenate([np.zeros(len(dead_item), np.int64), nbytes]),
    ]  # fmt: skip
    return Accesses(*(column[order] for column in joined))


_REACHING: Final = [KIND[name] for name in ("kernel", "copy_h2d", "copy_d2h", "collective")]


def _deaths(program: Program, storage_of_block: Column) -> tuple[Column, Column]:
    """Items before which storages die, and the blocks that die with them."""
    instructions = program.trace.instructions
    frees = program.trace.select("free")
    frees = frees[frees > program.row.min()] if len(program) else frees
    ordered = np.maximum.accumulate(program.row)
    at = np.searchsorted(ordered, frees)
    inside = at < len(program)
    dead = instructions["target"][frees[inside]]
    # Blocks are sorted by storage; flat buffers outlive a step, so that each dying storage is one block.
    block = np.searchsorted(storage_of_block, dead)
    known = (block < len(storage_of_block)) & (storage_of_block[np.minimum(block, len(storage_of_block) - 1)] == dead)
    return at[inside][known].astype(np.int64), block[known].astype(np.int64)
