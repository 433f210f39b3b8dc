"""What reaches HBM: a tensor-level model of the GPU's last cache, least recently used out first, written back when it leaves.

Bytes that a kernel finds in the cache cost no HBM traffic; bytes that it writes cost theirs when something else pushes them out, and none at
all if a new tensor takes over their addresses first, as PyTorch's allocator arranges for short-lived tensors of one size.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.spec.machine import Architecture, Gpu

Column = npt.NDArray[np.int64]

READ, WRITE, DEATH = 0, 1, 2

# Share of the L2 that holds distinct data. From Ampere's data-centre parts on the L2 is two partitions, and each caches what its own half of
# the processors reads (NVIDIA A100 whitepaper, "L2 cache"; NVIDIA H100 whitepaper, "L2 cache"): what both halves read stands twice.
_DISTINCT: Final[dict[Architecture, float]] = {"ampere": 0.5, "hopper": 0.5, "blackwell": 0.5}


def effective_capacity(gpu: Gpu) -> float:
    """Bytes of distinct data that the L2 holds."""
    # GeForce and L-series parts of the same families have one partition (NVIDIA Ada whitepaper): told by their memory.
    discrete = gpu.hbm.kind.startswith("GDDR")
    return gpu.l2 * (1.0 if discrete else _DISTINCT.get(gpu.architecture, 1.0))


@dataclass(frozen=True)
class Accesses:
    """Reads, writes and deaths of blocks, in program order; columns of one length."""

    item: Column
    """Kernel that this belongs to, from 0."""
    what: Column
    """READ, WRITE or DEATH."""
    block: Column
    """Which memory, by number."""
    nbytes: Column


def hbm_traffic(accesses: Accesses, items: int, capacity: float) -> tuple[Column, Column]:
    """Bytes that each item reads from and writes to HBM, [items] each, through a cache of `capacity` bytes."""
    read, written = [0] * items, [0] * items
    cache = _Cache(capacity)
    columns = (accesses.item.tolist(), accesses.what.tolist(), accesses.block.tolist(), accesses.nbytes.tolist())
    for item, what, block, nbytes in zip(*columns, strict=True):
        if what == READ:
            missed = cache.read(block, nbytes)
            read[item] += missed
        elif what == WRITE:
            cache.write(block, nbytes)
        else:
            cache.free(block)
        if cache.spilled:
            written[item] += cache.spilled
            cache.spilled = 0
    return np.array(read, np.int64), np.array(written, np.int64)


class _Cache:
    """Blocks by number: [bytes held, of these not yet written back]. `spilled` counts bytes written to HBM until somebody takes them."""

    __slots__ = ("_capacity", "_dead", "_held", "_used", "spilled")

    def __init__(self, capacity: float) -> None:
        self._capacity = int(capacity)
        self._held: OrderedDict[int, list[int]] = OrderedDict()
        self._used = 0
        self._dead: dict[int, list[int]] = {}
        self.spilled = 0

    def read(self, block: int, nbytes: int) -> int:
        """Bytes that `block` did not have here."""
        entry = self._held.get(block)
        if entry is None:
            self._bring(block, nbytes, 0)
            return nbytes
        held = entry[0]
        if held >= nbytes:
            self._held.move_to_end(block)
            return 0
        self._grow(block, entry, nbytes, 0)
        return nbytes - held

    def write(self, block: int, nbytes: int) -> None:
        """`nbytes` of `block` are new here, and not yet in HBM."""
        entry = self._held.get(block)
        if entry is None:
            entry = self._inherited(block, nbytes)
        if entry is None:
            self._bring(block, nbytes, nbytes)
        elif entry[0] >= nbytes:
            self._held.move_to_end(block)
            entry[1] = max(entry[1], nbytes)
        else:
            self._grow(block, entry, nbytes, nbytes)

    def free(self, block: int) -> None:
        """What `block` holds will not be read again; its addresses are free for the next block of its size."""
        entry = self._held.get(block)
        if entry is not None:
            self._dead.setdefault(entry[0], []).append(block)

    def _inherited(self, block: int, nbytes: int) -> list[int] | None:
        """The place of a dead block of this size, which `block` takes over."""
        waiting = self._dead.get(nbytes)
        while waiting:
            entry = self._held.pop(waiting.pop(), None)
            if entry is not None:
                self._held[block] = entry
                return entry
        return None

    def _bring(self, block: int, nbytes: int, dirty: int) -> None:
        if nbytes > self._capacity:
            self._pass(nbytes, dirty)
            return
        self._held[block] = [nbytes, dirty]
        self._used += nbytes
        if self._used > self._capacity:
            self._shrink()

    def _grow(self, block: int, entry: list[int], nbytes: int, dirty: int) -> None:
        if nbytes > self._capacity:
            self._pass(nbytes, dirty)
            return
        self._used += nbytes - entry[0]
        entry[0] = nbytes
        entry[1] = max(entry[1], dirty)
        self._held.move_to_end(block)
        self._shrink()

    def _pass(self, nbytes: int, dirty: int) -> None:
        """A stream larger than the cache goes through it and sweeps it clean; its own end, which stays, is not read first next time."""
        self.spilled += dirty
        if self._held:
            self.spilled += sum([entry[1] for entry in self._held.values()])
            self._held.clear()
            self._dead.clear()
            self._used = 0

    def _shrink(self) -> None:
        while self._used > self._capacity:
            oldest = next(iter(self._held))
            entry = self._held[oldest]
            excess = self._used - self._capacity
            if entry[0] <= excess:
                del self._held[oldest]
                self._used -= entry[0]
                self.spilled += entry[1]
            else:
                self._used -= excess
                entry[0] -= excess
                # The part that leaves is not yet written back as far as there is such a part.
                out = min(entry[1], excess)
                entry[1] -= out
                self.spilled += out
