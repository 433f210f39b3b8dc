"""One direction's copy engine: copies of several streams take it one after the other as they become ready, not in the order in which the host asked.

A copy whose stream still waits does not hold up another stream's: since Kepler each stream has a queue of its own in hardware, and the order of
launches across streams no longer matters (M. Harris, "How to overlap data transfers in CUDA C/C++", NVIDIA developer blog, 2012, on Hyper-Q).

Items are played in the host's order. So a copy may be ready before one that was asked for earlier and has its time already; it then goes first, as
it really would. The earlier one keeps its time, though it would really end later; what of it the two have together is made up for by the copies
that follow, so that in all the engine moves no more than the link can.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class CopyEngine:
    """When the engine is taken, in K columns; s."""

    def __init__(self) -> None:
        self._taken: list[tuple[Floats, Floats]] = []
        """Begin and end of what it is taken for, [K] each."""
        self._last: Floats | None = None
        """When all that was asked for so far is over; [K]."""

    def twin(self) -> CopyEngine:
        """Another that goes on from here, whatever becomes of this one."""
        other = CopyEngine()
        other._taken, other._last = list(self._taken), self._last
        return other

    def take(self, now: Floats, ready: Floats, seconds: Floats) -> tuple[Floats, Floats]:
        """When a copy of `seconds` begins and ends that its stream lets go at `ready`; [K] each.

        `now`: the host's time; no later copy is ready before it.
        """
        self._taken = [each for each in self._taken if (each[1] > now).any()]
        if self._last is None or (ready >= self._last).all():
            begin, end = ready, ready + seconds
        else:
            begin, end = self._among(ready, seconds)
        self._taken.append((begin, end))
        self._last = end if self._last is None else np.maximum(self._last, end)
        return begin, end

    def _among(self, ready: Floats, seconds: Floats) -> tuple[Floats, Floats]:
        begins, ends = np.stack([b for b, _ in self._taken]), np.stack([e for _, e in self._taken])
        order = np.argsort(begins, axis=0, kind="stable")
        begins, ends = np.take_along_axis(begins, order, 0), np.take_along_axis(ends, order, 0)
        begin = ready
        for taken, free in zip(begins, ends, strict=True):
            begin = np.where(taken <= begin, np.maximum(begin, free), begin)
        end = begin + seconds
        both, until = np.zeros_like(end), end
        for taken, free in zip(begins, ends, strict=True):
            met = (taken > begin) & (taken < until)
            both = both + np.where(met, np.minimum(free, end) - np.minimum(taken, end), 0.0)
            until = np.where(met, np.maximum(until, free), until)
        if both.any():
            owed = until, until + both
            self._taken.append(owed)
            self._last = owed[1] if self._last is None else np.maximum(self._last, owed[1])
        return begin, end
