"""A run of many optimizer steps at 20 ms: micro-steps of drawn lengths end to end, each with what flows in it, seen by one rank.

Each captured micro-step at each priced length is kept as curves: what has flowed by what share of its time. A run lays them end to end, at the
length that was drawn, and reads them off on the grid of samples. A rank that waits for a slower one spins in a collective meanwhile: busy,
and moving nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.replay import intervals
from membound.replay.flows import FLOWS
from membound.replay.step import Played
from membound.trace.schema import KIND, PHASE

Floats = npt.NDArray[np.float64]

# Points of a micro-step's curves: finer than its 20 ms samples for any micro-step below a second, and for longer ones one sample each.
_POINTS: Final = 48
_LONGEST: Final = 20_000
"""Points of a run's curves at most, times its kinds: a bound on memory, not on length."""

COLUMNS: Final = ("busy", *FLOWS)


@dataclass(frozen=True)
class Span:
    """A stretch of a step: one captured micro-step, or the optimizer. Curves [K, POINTS, COLUMNS] over a share of its time, seconds [K]."""

    curves: Floats
    seconds: Floats


@dataclass(frozen=True)
class Mark:
    """A step or micro-step of the run; s since its start."""

    start: float
    end: float
    kind: str
    step: int
    micro: int


@dataclass(frozen=True)
class Course:
    """A run on a grid of `period` seconds: what flowed in each bin, [bins, COLUMNS], and where steps stand."""

    period: float
    bins: Floats
    marks: tuple[Mark, ...]
    seconds: float

    def rate(self, name: str) -> Floats:
        """Per second in each bin; for `busy` a share."""
        return np.asarray(self.bins[:, COLUMNS.index(name)] / self.period, np.float64)


def course(played: Played, period: float, seconds: float, seed: int = 1) -> Course:
    """At least `seconds` of a run, whole steps, sampled every `period` seconds."""
    spans = _spans(played)
    times, totals, marks = [np.zeros(1)], [np.zeros((1, len(COLUMNS)))], []
    now, total = 0.0, np.zeros(len(COLUMNS))
    for step, pieces in enumerate(_steps(played, spans, seed)):
        begin = now
        for micro, (curve, length, wait) in enumerate(pieces):
            inside = np.linspace(0, 1, len(curve))[1:] * length
            times.append(now + inside)
            totals.append(total + curve[1:])
            here = now
            now, total = now + length, total + curve[-1]
            if wait > 0:
                total = total + np.eye(len(COLUMNS))[0] * wait
                now += wait
                times.append(np.array([now]))
                totals.append(total[None])
            marks.append(Mark(here, now, "micro-step" if micro < len(pieces) - 1 else "phase", step, micro))
        marks.append(Mark(begin, now, "step", step, -1))
        # Three steps are three, whatever the last digit of their sum.
        if now >= seconds * (1 - 1e-9) or step >= 10_000:
            break
    at = np.arange(0.0, now, period)
    joined, flows = np.concatenate(times), np.concatenate(totals)
    read = np.stack([np.interp(at, joined, flows[:, column]) for column in range(len(COLUMNS))], axis=1)
    return Course(period, np.diff(read, axis=0), tuple(marks), now)


def _spans(played: Played) -> list[Span]:
    """The captured micro-steps in order, then the optimizer."""
    segments = played.timeline.segments
    micro = played.work.program.micro[segments]
    optimizer = played.segment_phase == PHASE["optimizer"]
    groups = [np.flatnonzero((micro == number) & ~optimizer) for number in range(played.times)] + [np.flatnonzero(optimizer)]
    return [_span(played, group) for group in groups if len(group)]


def _span(played: Played, group: npt.NDArray[np.int64]) -> Span:
    curves, lasting = [], []
    busy = np.isin(played.work.program.kind, [KIND["kernel"], KIND["collective"]])
    for k in range(len(played.grid)):
        begin, end = played.borders[group[0], k], played.borders[group[-1] + 1, k]
        at = np.linspace(begin, end, _points(end - begin))
        start, stop = played.timeline.start[:, k], played.timeline.end[:, k]
        # What is over before, or begins after, changes no difference between two moments.
        within = (stop >= begin - intervals.SHORTEST) & (start <= end)
        amounts = np.vstack([played.work.flows.by_item[k][:, within], played.cores[within, k]])
        flows = intervals.flowed(start[within], stop[within], amounts, at)
        ran = intervals.covered(start[busy & within], stop[busy & within], at)
        both = np.vstack([ran[None], flows])
        curves.append((both - both[:, :1]).T)
        lasting.append(end - begin)
    longest = max(len(curve) for curve in curves)
    return Span(np.stack([_resampled(curve, longest) for curve in curves]), np.array(lasting))


def _points(seconds: float) -> int:
    return int(np.clip(seconds / 0.01, _POINTS, 2000))


def _resampled(curve: Floats, points: int) -> Floats:
    old, new = np.linspace(0, 1, len(curve)), np.linspace(0, 1, points)
    return np.stack([np.interp(new, old, column) for column in curve.T], axis=1)


def _steps(played: Played, spans: list[Span], seed: int) -> Iterator[list[tuple[Floats, float, float]]]:
    """Step by step, the pieces of rank 0: curve, seconds, and seconds of waiting after it."""
    optimizer = spans[-1]
    grid = np.array(played.grid, np.float64)
    draw = np.random.default_rng(seed)
    order = _order(played, len(spans) - 1)
    last = (optimizer.curves[0], float(optimizer.seconds.mean()), 0.0)
    if played.lengths.fixed:
        # Each step is like the other, and nobody waits.
        length = int(played.lengths.rows[0])
        yield from itertools.repeat([*((_at(spans[i], grid, length), float(np.interp(length, grid, spans[i].seconds)), 0.0) for i in order), last])
    while True:
        lengths = played.lengths.draws((played.ranks, len(order)), int(draw.integers(1 << 31)))
        took = np.stack([np.interp(lengths[:, i], grid, spans[number].seconds) for i, number in enumerate(order)], axis=1)
        if played.together:
            wait = took.max(axis=0) - took[0]
        else:
            wait = np.zeros(len(order))
            wait[-1:] = took.sum(axis=1).max() - took[0].sum()
        pieces = [(_at(spans[number], grid, lengths[0, i]), float(took[0, i]), float(wait[i])) for i, number in enumerate(order)]
        yield [*pieces, last]


def _order(played: Played, captured: int) -> list[int]:
    """Captured micro-steps in the order in which a step has them: the middle one as often as it really happens."""
    if captured < 3:
        return list(range(captured))
    return [0, *([1] * played.repeat), *range(2, captured)]


def _at(span: Span, grid: Floats, length: int) -> Floats:
    """The curve of a micro-step of `length` tokens: between those of its neighbours in the grid."""
    right = int(np.clip(np.searchsorted(grid, length), 1, len(grid) - 1)) if len(grid) > 1 else 0
    if len(grid) == 1:
        return np.asarray(span.curves[0])
    share = float(np.clip((length - grid[right - 1]) / (grid[right] - grid[right - 1]), 0.0, 1.0))
    return np.asarray(span.curves[right - 1] * (1 - share) + span.curves[right] * share)
