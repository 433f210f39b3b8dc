"""HBM bytes of each item of a Program on a GPU: its operands, through the L2."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost import l2
from membound.cost.l2 import DEATH, Accesses, hbm_traffic
from membound.replay.program import Program
from membound.replay.walked import Memo
from membound.trace.schema import KIND, PLACE

Column = npt.NDArray[np.int64]

# A storage larger than any cache holds many parameters side by side, as DeepSpeed's flat buffers do: its parts are told apart by where they
# begin, B.
_PARTED: Final = 256 << 20
# Storage and offset in one number, sorted by storage: offsets below 16 TB, storages below 500,000.
_PART_BITS: Final = 44


def traffic(program: Program, length: int, capacity: float, memo: Memo | None = None) -> tuple[Column, Column]:
    """Bytes read from and written to HBM by each item [n], where rows have `length` tokens and the L2 holds `capacity` bytes.

    Copies between host and GPU and collectives go through as well: what they bring or take is HBM traffic. `memo` keeps what was found.
    """
    found = accesses(program, length)
    if memo is None:
        return hbm_traffic(found, len(program), capacity)
    key = _key(found, len(program), capacity)
    known = memo.get(key)
    if known is not None:
        return known["read"], known["written"]
    read, written = hbm_traffic(found, len(program), capacity)
    memo.put(key, {"read": read, "written": written})
    return read, written


def _key(found: Accesses, items: int, capacity: float) -> str:
    """All that the traffic depends on: what is accessed, the cache's size, and the cache's own code."""
    total = hashlib.sha256(_own_code())
    total.update(f"{items} items, {capacity!r} B;".encode())
    for column in (found.item, found.what, found.block, found.nbytes):
        total.update(np.ascontiguousarray(column).data)
    return total.hexdigest()


@functools.cache
def _own_code() -> bytes:
    return Path(l2.__file__).read_bytes()


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
