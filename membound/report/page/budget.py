"""How finely each series is embedded, so that a page with all of them stays within its size.

Smooth curves cost little and keep every sample. The costliest one is coarsened first: fewer steps between its lowest and highest value, then
longer bins. Bins keep their extremes, so no peak is ever lost; the page says how finely each curve is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from membound.report.page.levels import Array, level_for, reduce
from membound.report.page.packing import MOST_STEPS, Block, Coding, extremes, pack, packed_size

# Bins of a whole run as first drawn: about the pixels of a figure's width.
OVERVIEW_BINS: Final = 1024
# Steps between lowest and highest value, and log2 of samples a bin. Level 1 would take more room than level 0: it keeps three numbers for two.
_RUNGS: Final = ((MOST_STEPS, 0), (4000, 0), (1000, 0), (250, 0), (120, 0), *((250, level) for level in range(2, 24)))
# Sizes are told from so many pieces of so many samples.
_PIECES: Final = 16
_PIECE: Final = 4096


@dataclass(frozen=True)
class Packed:
    """A series as the page holds it: a whole view, and a finer one where there is more to see and room for it."""

    overview: Block
    fine: Block | None
    steps: int
    """Steps between the lowest and the highest value of the finer view."""


class _Candidate:
    """A series on one of the rungs that it may stand on; past the last one, only the overview is left."""

    def __init__(self, values: Array) -> None:
        self.values = values
        self.extremes = extremes(values)
        self.coarsest = level_for(values.shape[1], OVERVIEW_BINS)
        self.rungs = [rung for rung in _RUNGS if rung[1] < self.coarsest]
        self.overview = pack(reduce(values, self.coarsest), Coding.of(self.extremes, MOST_STEPS))
        self.at = 0
        self._sizes: dict[int, int] = {}

    def size(self, at: int) -> int:
        """Characters on rung `at`, told from pieces of the series."""
        if at >= len(self.rungs):
            return 0
        if at not in self._sizes:
            steps, level = self.rungs[at]
            flat = self.values.reshape(-1)
            starts = np.unique(np.linspace(0, max(flat.size - _PIECE, 0), _PIECES, dtype=np.int64))
            piece = np.concatenate([flat[start : start + _PIECE] for start in starts])[None]
            packed = packed_size(reduce(piece, level), Coding.of(self.extremes, steps))
            self._sizes[at] = int(packed * max(flat.size / piece.size, 1.0))
        return self._sizes[at]

    def packed(self) -> Packed:
        """As it stands."""
        if self.at >= len(self.rungs):
            return Packed(self.overview, None, MOST_STEPS)
        steps, level = self.rungs[self.at]
        return Packed(self.overview, pack(reduce(self.values, level), Coding.of(self.extremes, steps)), steps)


def pack_all(series: Sequence[Array], room: int) -> list[Packed]:
    """Every series, [devices, samples] each, in about `room` characters; the overviews take theirs whatever it is."""
    candidates = [_Candidate(values) for values in series]
    room -= sum(len(each.overview.text) for each in candidates)
    while _total(candidates) > max(room, 0):
        _next_down(candidates).at += 1
    # The last one down may have left room that another can use.
    for each in sorted(candidates, key=lambda each: -each.at):
        while each.at > 0 and _total(candidates) - each.size(each.at) + each.size(each.at - 1) <= room:
            each.at -= 1
    return [each.packed() for each in candidates]


def _next_down(candidates: Sequence[_Candidate]) -> _Candidate:
    """Of those that cost most, within a factor of two, the one that is kept best: like curves are kept alike."""
    most = max(each.size(each.at) for each in candidates)
    costly = [each for each in candidates if each.size(each.at) >= most / 2]
    return min(costly, key=lambda each: (each.at, -each.size(each.at)))


def _total(candidates: Sequence[_Candidate]) -> int:
    return sum(each.size(each.at) for each in candidates)
