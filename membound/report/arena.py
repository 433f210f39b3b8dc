"""Addresses where no allocator gave any: each block goes into the smallest gap that holds it, one address space per stream."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final

# Source: PyTorch c10/cuda/CUDACachingAllocator, kMinBlockSize.
_BLOCK: Final = 512
# Each stream's memory begins at its own multiple of this: no two meet, and all addresses are exact in a double (below 2**53).
_SPACE: Final = 1 << 42


def rounded(nbytes: int) -> int:
    """Bytes that a block of `nbytes` takes."""
    return -(-nbytes // _BLOCK) * _BLOCK


class Arena:
    """Gaps by stream. Addresses only have to be disjoint: they say nothing of what a real allocator would choose."""

    def __init__(self) -> None:
        self._top: dict[int, int] = {}
        # By stream: gaps as (size, start) in order, and their ends by start and starts by end.
        self._gaps: dict[int, list[tuple[int, int]]] = {}
        self._end: dict[int, int] = {}
        self._start: dict[int, int] = {}

    def take(self, nbytes: int, stream: int = 0) -> int:
        """The address of a new block."""
        size, gaps = rounded(nbytes), self._gaps.setdefault(stream, [])
        at = bisect_left(gaps, (size, 0))
        if at < len(gaps):
            start = gaps[at][1]
            end = self._remove(stream, start)
            if end > start + size:
                self._add(stream, start + size, end)
            return start
        start = self._top.get(stream, (stream + 1) * _SPACE)
        self._top[stream] = start + size
        return start

    def give_back(self, address: int, nbytes: int, stream: int = 0) -> None:
        """The block is free; it joins the gaps on either side."""
        start, end = address, address + rounded(nbytes)
        if end in self._end:
            end = self._remove(stream, end)
        if start in self._start:
            start, _ = self._start[start], self._remove(stream, self._start[start])
        self._add(stream, start, end)

    def _add(self, stream: int, start: int, end: int) -> None:
        insort(self._gaps[stream], (end - start, start))
        self._end[start], self._start[end] = end, start

    def _remove(self, stream: int, start: int) -> int:
        end = self._end.pop(start)
        del self._start[end]
        gaps = self._gaps[stream]
        del gaps[bisect_left(gaps, (end - start, start))]
        return end
