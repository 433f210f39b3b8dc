"""Items on their streams: the host launches in order, streams wait for launches and events, copies for their link, collectives for the last one.

Every moment is kept with what it hangs on: of two things that must both be over, the later one's history counts. So the end of the step says
how much of it was arithmetic, HBM, launching or a link, and these add up. All row lengths, and all machines of a sweep, go side by side.

What hangs on what is worked out once for a program (`membound.replay.knots`); a machine makes seconds of it (`membound.replay.back_to_back`), and a
walk finds the moments (`membound.replay.walk`). What they hang on is looked for afterwards, where somebody asks (`membound.replay.histories`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from membound.cost.resources import Spent
from membound.replay.back_to_back import Between
from membound.replay.histories import histories
from membound.replay.pricing import Prices
from membound.replay.program import Program
from membound.replay.walk import walk

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Timeline:
    """When items run; s since the step began. `n` items, K columns."""

    program: Program
    prices: Prices
    """What it was played with, `slower` included."""
    between: Between
    moments: Floats
    """Those of the program's knots; [K, N]."""
    waited: Floats
    """By how much copies had to wait for each other; [K, copies]."""
    factor: Floats
    """On launch times; [K]."""

    @functools.cached_property
    def _runs(self) -> tuple[Floats, Floats]:
        order, found = self.between.knots.order, []
        for moments in self.between.runs(self.moments):
            # One column after the other: whoever asks goes through them one by one.
            whole = np.zeros((len(moments), len(self.program)))
            whole[:, order] = moments
            found.append(whole.T)
        return found[0], found[1]

    @property
    def start(self) -> Floats:
        """0 for what takes no time; [n, K]."""
        return self._runs[0]

    @property
    def end(self) -> Floats:
        """[n, K]"""
        return self._runs[1]

    @functools.cached_property
    def host(self) -> Floats:
        """When the host goes on to what follows the item; [n, K]."""
        knots = self.between.knots
        which = np.searchsorted(knots.begins, np.arange(len(self.program)), "right") - 1
        base = knots.epochs[which]
        launches = np.concatenate([[0.0], np.cumsum(self.prices.launch)])
        since = launches[1:] - launches[knots.counted[which] + 1]
        return np.asarray(self.moments[:, base].T + since[:, None] * self.factor, np.float64)

    @functools.cached_property
    def borders(self) -> Spent:
        """Where the segments of the step end, with their histories; [segments, ROWS, K]."""
        return histories(self.between, self.prices, self.moments, self.waited, self.between.knots.borders)

    @property
    def segments(self) -> Column:
        """First item of each segment, one per phase of each captured micro-step; [segments]."""
        return self.program.segments


def play(program: Program, prices: Prices, host: float | Floats = 1.0) -> Timeline:
    """Run `program` with `prices`. `host`: factor on launch times, one for all or one per column."""
    (line,) = play_each(program, [prices], host)
    return line


def play_each(program: Program, prices: Sequence[Prices], host: float | Floats = 1.0) -> list[Timeline]:
    """As `play` for each of `prices`, side by side."""
    knots = program.knots
    factors = [np.broadcast_to(np.asarray(host, np.float64), (each.table.shape[2],)) for each in prices]
    between = [Between.of(knots, each, factor) for each, factor in zip(prices, factors, strict=True)]
    found = walk(knots, *(np.concatenate([getattr(each, name) for each in between], axis=1) for name in ("stay", "launch")))
    ends = np.cumsum([len(factor) for factor in factors])[:-1]
    moments, waited = (np.split(np.ascontiguousarray(each.T), ends) for each in found)
    return [Timeline(program, *facts) for facts in zip(prices, between, moments, waited, factors, strict=True)]


Slower = Callable[[Timeline], Floats | None]
"""Finds in a first play the factors on durations, [n, K], of what runs beside each other; None where nothing does."""


def play_twice(program: Program, prices: Sequence[Prices], slower: Sequence[Slower]) -> list[Timeline]:
    """As `play_each`; then again those machines for which `slower` finds factors in that first play."""
    lines = play_each(program, prices)
    found = [find(line) for find, line in zip(slower, lines, strict=True)]
    again = [at for at, factors in enumerate(found) if factors is not None]
    for at, line in zip(again, play_each(program, [replace(prices[at], slower=found[at]) for at in again]) if again else (), strict=True):
        lines[at] = line
    return lines
