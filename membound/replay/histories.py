"""What moments hang on: found back from them, knot by knot, along what was waited for last; and added up by resource.

Of two things that must both be over, the later one's history counts. So a moment is the sum of what lies on its path, which is split over resources.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from membound.cost.resources import ROW, ROWS, Spent
from membound.replay.back_to_back import Between
from membound.replay.knots import TO_GPU, TO_HOST
from membound.replay.pricing import Prices

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_LAUNCH, _PCIE = ROW["launch"], ROW["pcie"]


def histories(between: Between, prices: Prices, moments: Floats, waited: Floats, ends: Column) -> Spent:
    """The moments `ends` of all knots' [K, N], split over resources; [ends, ROWS, K]. `waited` is for how long copies did for others [K, copies]."""
    choice = _Choice.of(between, moments)
    paths = _paths(choice.parent, ends)
    spent = _spent(between, prices, waited, choice.launched, paths)
    return _summed(paths, spent, choice.share[paths.column, paths.knot], moments, ends)


@dataclass(frozen=True)
class _Choice:
    """Of each knot in each column what it hangs on; [K, N] each."""

    parent: Column
    launched: Bools
    """Whether it waits for the host last."""
    share: Floats
    """How much of its parent's history is its own: 1 but where the host waits for an item of the stream to begin."""

    @classmethod
    def of(cls, between: Between, moments: Floats) -> _Choice:
        knots = between.knots
        before, other = moments[:, knots.before], moments[:, knots.other]
        stay, launch = between.stay.T, moments[:, knots.base] + between.launch.T
        ready = np.maximum(before, other)
        free = ready + stay
        # The engine's turn comes after all that a copy waits for.
        free[:, knots.copies] = ready[:, knots.copies]
        parent = np.where(other > before, knots.other, knots.before)
        share = np.ones(moments.shape)
        looks = knots.queued
        tail = before[:, looks]
        begun = np.minimum(other[:, looks] - stay[:, looks], tail)
        parent[:, looks], free[:, looks] = knots.before[looks], begun
        # When that item started nobody keeps with its history: what the host waits for then is the GPU's own work, whose mix the stream has.
        share[:, looks] = begun / np.where(tail > 0, tail, 1.0)
        launched = launch > free
        return cls(np.where(launched, knots.base, parent), launched, np.where(launched, 1.0, share))


@dataclass(frozen=True)
class _Paths:
    """Knots on the paths of some ends, each once in its column, in pieces that begin where they leave a former one; [V]."""

    knot: Column
    column: Column
    pieces: list[tuple[int, int, int]]
    """Where each begins and ends, and where what it goes on from stands, -1 for the beginning of the step. Within one, earlier knots come first."""
    ends: list[list[int]]
    """By column: where each end stands."""


def _paths(parent: Column, ends: Column) -> _Paths:
    knots: list[int] = []
    pieces, counts, stand = [], [], []
    for column in parent.tolist():
        known, begun = {0: -1}, len(knots)
        # The last one's path is the longest, and most others' part of it.
        for end in reversed(ends.tolist()):
            path, here = [], end
            while here not in known:
                path.append(here)
                here = column[here]
            if path:
                path.reverse()
                first = len(knots)
                pieces.append((first, first + len(path), known[here]))
                known.update(zip(path, range(first, first + len(path)), strict=True))
                knots += path
        stand.append([known[end] for end in ends.tolist()])
        counts.append(len(knots) - begun)
    return _Paths(np.array(knots, np.int64), np.repeat(np.arange(len(counts)), counts), pieces, stand)


def _spent(between: Between, prices: Prices, waited: Floats, launching: Bools, paths: _Paths) -> Floats:
    """Seconds between each knot on the paths and the one that it hangs on, by resource; [V, ROWS]."""
    knots, knot, column = between.knots, paths.knot, paths.column
    launched = launching[column, knot]
    first, after = knots.first[knot], knots.after[knot]
    begin = first.copy()
    # A stream that waited for the host last did so for one of its items, and hangs on those from there on.
    several = np.flatnonzero(launched & (after > first))
    for at, k, lo, hi in zip(several.tolist(), column[several].tolist(), first[several].tolist(), after[several].tolist(), strict=True):
        begin[at] += between.ahead[k, lo:hi].argmax() if hi > lo + 1 else 0
    found = np.zeros((len(knot), ROWS))
    for row in range(1, ROWS):
        summed = _Sums.of(between, prices, row)
        if summed is not None:
            found[:, row] = summed.until(column, after) - summed.until(column, begin)
    held, bare = (np.flatnonzero(launched & chosen) for chosen in (after > first, after == first))
    found[held, _LAUNCH] += between.arrives[column[held] % len(between.arrives), begin[held]]
    found[bare, _LAUNCH] += between.launch[knot[bare], column[bare]]
    # Where a copy waits for its turn, it waits for other copies: that is put down to the link.
    copies = np.flatnonzero((knots.kind[knot] == TO_GPU) | (knots.kind[knot] == TO_HOST))
    found[copies, _PCIE] += waited[column[copies], np.searchsorted(knots.copies, knot[copies])]
    return found


@dataclass(frozen=True)
class _Sums:
    """What the items of each stream spend on one resource, added up as far as each; where few do, of those alone."""

    summed: Floats
    """[K, some + 1]"""
    place: Column | None
    """How many of the some come before each item; [m + 1]."""

    @classmethod
    def of(cls, between: Between, prices: Prices, row: int) -> _Sums | None:
        """None where no item spends any."""
        table = prices.table[row]
        spend = table.any(axis=1)
        if not spend.any():
            return None
        entry, slower = prices.index[between.knots.order], between.slower
        spending = spend[entry]
        those = np.flatnonzero(spending)
        some = len(those) < len(entry) / 2
        if some:
            entry, slower = entry[those], None if slower is None else slower[:, those]
        seconds = np.take(np.ascontiguousarray(table.T), entry, axis=1)
        if slower is not None:
            seconds *= slower
        summed = np.zeros((len(seconds), len(entry) + 1))
        np.cumsum(seconds, axis=1, out=summed[:, 1:])
        return cls(summed, np.concatenate([[0], np.cumsum(spending)]) if some else None)

    def until(self, column: Column, item: Column) -> Floats:
        """As far as some items of some columns."""
        at = item if self.place is None else self.place[item]
        found: Floats = self.summed.ravel()[column * self.summed.shape[1] + at]
        return found


def _summed(paths: _Paths, spent: Floats, share: Floats, moments: Floats, ends: Column) -> Spent:
    """Histories from what lies between knots."""
    # Added up over all pieces; within one, a history is that and an offset.
    whole = np.concatenate([np.zeros((1, ROWS)), np.cumsum(spent, axis=0)])
    starts: list[int] = []
    offsets: list[Floats] = []

    def history(at: int) -> Floats:
        found: Floats = np.zeros(ROWS) if at < 0 else whole[at + 1] + offsets[bisect.bisect_right(starts, at) - 1]
        return found

    scaled = np.flatnonzero(share != 1.0).tolist()
    for first, after, on in paths.pieces:
        starts.append(first)
        offsets.append(history(on) - whole[first])
        for at in scaled[bisect.bisect_left(scaled, first) : bisect.bisect_left(scaled, after)]:
            part = share[at] * history(at - 1 if at > first else on) - whole[at]
            if at > first:
                starts.append(at)
                offsets.append(part)
            else:
                offsets[-1] = part
    found = np.stack([[history(at) for at in column] for column in paths.ends], axis=2)
    found[:, 0] = moments[:, ends].T
    return found
