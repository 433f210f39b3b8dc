"""The moments of a program that others hang on, its knots, and what each hangs on: worked out once, for all machines.

Between two knots of a stream lie kernels and collectives that follow each other with nothing between: when each of them runs follows from the knots
(`membound.replay.back_to_back`). So a walk over a program (`membound.replay.walk`) turns once for each knot, and not for each item.

Every knot is the latest of three: its stream's knot before it and another's, both with the durations of its own items; and its launch by the host,
which counts from a knot too, the last at which the host waited or worked.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from membound.replay.waits import APART, Waits, waits
from membound.trace.schema import KIND

if TYPE_CHECKING:
    from membound.replay.program import Program

Column = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_KERNEL, _H2D, _D2H, _COLLECTIVE, _HOST = (KIND[k] for k in ("kernel", "copy_h2d", "copy_d2h", "collective", "host"))
_RECORD, _WAIT, _SYNC = (KIND[k] for k in ("record", "wait", "sync"))
_TIMED: Final = (_KERNEL, _H2D, _D2H, _COLLECTIVE, _HOST)

# Launches that the driver queues before it makes the host wait: an assumption, as in membound.replay.releases. Looked at every so many items.
QUEUE: Final = 1024
_LOOK: Final = 128

JOIN, WORK, TO_GPU, TO_HOST, QUEUED = range(5)
"""What a knot is: the latest of what it hangs on; when host work is done; when a copy is; when the queue has room for what the host launches next."""
_ON_HOST: Final = -2
"""Stands for the stream of host work."""


# What a walk does at a knot, the knot, the one before and the other one that it waits for.
Turn = tuple[int, int, int, int]
AFTER_ONE, AFTER_TWO, ITEMS_AFTER_ONE, ITEMS_AFTER_TWO, HOST_WORK, COPY_TO_GPU, COPY_TO_HOST, LOOK = range(8)


@dataclass(frozen=True)
class Knots:
    """N knots, each after those that it hangs on; the first one is the beginning of the step. m items that take time, n of the program."""

    kind: Column
    """[N]"""
    before: Column
    """Knot of its stream before it; [N]."""
    other: Column
    """Another knot that it waits for, 0 for none; [N]. QUEUED: the one whose last item must have begun."""
    base: Column
    """Knot from which the host's launches count; [N]."""
    since: Column
    """The last item whose launch is not counted any more; [N]."""
    upto: Column
    """The last item whose launch is counted, for a knot without items; -1 for one that nobody launches; [N]."""
    first: Column
    """Where its items begin; [N]."""
    after: Column
    """Where they end; [N]."""
    order: Column
    """All items that take time, by stream; those of a knot, and the knots of a stream, one after the other; [m]."""
    chains: tuple[tuple[int, int], ...]
    """Where each stream's items lie, host work and collectives that stand apart as streams of their own."""
    borders: Column
    """Knots at which the segments of the step end; [segments]."""
    epochs: Column
    """Knots from which the host's launches count, in order; [E]."""
    begins: Column
    """The first item after which the host has gone on from each of them; [E]."""
    counted: Column
    """The last item whose launch is not counted from there on; [E]."""

    @functools.cached_property
    def holding(self) -> Column:
        """The knots that have items, in the items' order."""
        held = np.flatnonzero(self.after > self.first)
        return held[np.argsort(self.first[held])]

    @functools.cached_property
    def of_item(self) -> Column:
        """Knot of each item in `order`; [m]."""
        return np.repeat(self.holding, (self.after - self.first)[self.holding])

    @functools.cached_property
    def alone(self) -> Column:
        """Those of copies and host work, each of which is one item."""
        return np.flatnonzero((self.kind == TO_GPU) | (self.kind == TO_HOST) | (self.kind == WORK))

    @functools.cached_property
    def copies(self) -> Column:
        """Those of copies."""
        return np.flatnonzero((self.kind == TO_GPU) | (self.kind == TO_HOST))

    @functools.cached_property
    def queued(self) -> Column:
        """Those at which the queue has room."""
        return np.flatnonzero(self.kind == QUEUED)

    @functools.cached_property
    def turns(self) -> list[tuple[int, int, int, list[Turn]]]:
        """What a walk does: by knot of the host, the knots whose launch counts from it, first and one after the last, and a turn for each."""
        lasts = (self.after > self.first).astype(np.int64)
        does = np.where(self.kind == JOIN, 2 * lasts + (self.other > 0), self.kind + (ITEMS_AFTER_TWO - JOIN))
        turns = list(zip(does.tolist(), range(len(does)), self.before.tolist(), self.other.tolist(), strict=True))
        starts = self.epochs.tolist()
        return [(base, base + 1, end + 1, turns[base + 1 : end + 1]) for base, end in zip(starts, [*starts[1:], len(does) - 1], strict=True)]


def knots(program: Program) -> Knots:
    """Those of `program`."""
    rows = list(_rows(program))
    return _Tying(program, waits(program, rows)).tied(rows)


def _rows(program: Program) -> Iterator[tuple[int, int]]:
    """First item and the one after the last of each row of kernels on one stream, within a segment and between two looks at the queue;
    anything else is a row of its own."""
    count = len(program)
    kernel = program.kind == _KERNEL
    joined = np.zeros(count, np.bool_)
    joined[1:] = kernel[1:] & kernel[:-1] & (program.stream[1:] == program.stream[:-1])
    joined[program.segments] = False
    joined[1::_LOOK] = False
    first = np.flatnonzero(~joined)
    return zip(first.tolist(), np.append(first[1:], count)[: len(first)].tolist(), strict=True)


@dataclass
class _Tying:
    """The walk that ties them. A stream's knot is open while kernels may still be added to it: until anyone needs to know when it is over."""

    program: Program
    waits: Waits
    facts: list[tuple[int, int, int, int, int, int]] = field(default_factory=lambda: [(JOIN, 0, 0, 0, -1, -1)])
    """Kind, before, other, base, since, upto."""
    tails: dict[int, int] = field(default_factory=dict)
    """By stream: its last knot."""
    open: dict[int, int] = field(default_factory=dict)
    waiting: dict[int, int] = field(default_factory=dict)
    """By stream: a knot that the next one waits for besides."""
    made: dict[int, int] = field(default_factory=dict)
    """By item that others wait for: its knot."""
    looked: dict[int, int] = field(default_factory=dict)
    """By item whose beginning the queue is looked at for: its knot, in which it is the last."""
    apart: int = 0
    """The knot of what stands apart that was waited for last."""
    base: int = 0
    since: int = -1
    epochs: list[tuple[int, int, int]] = field(default_factory=lambda: [(0, 0, -1)])
    borders: list[int] = field(default_factory=list)
    rows: list[tuple[int, int, int, int]] = field(default_factory=list)
    """First item, the one after the last, stream and knot of what takes time."""

    def tied(self, rows: Sequence[tuple[int, int]]) -> Knots:
        program, cuts, last = self.program, set(self.program.segments[1:].tolist()), len(self.program) - 1
        # Items whose beginning the queue will be looked at for.
        looked = (np.isin(program.kind, _TIMED) & (np.arange(len(program)) + QUEUE <= last)).tolist()
        for first, after in rows:
            if first in cuts:
                self._border(first - 1)
            self._row(first, after)
            end = after - 1
            if not end % _LOOK:
                if looked[end]:
                    self._closed_after(end)
                if end - QUEUE in self.looked:
                    self._queue(end)
        self._join_apart()
        ends = [self._tail(stream) for stream in list(self.tails)]
        self.borders.append(self._joint(ends, last))
        return self._columns()

    def _row(self, first: int, after: int) -> None:
        kind, stream, target, flag, detached = self.program.items[first]
        if kind == _KERNEL:
            self._run(first, after, stream)
        elif kind == _COLLECTIVE:
            self._collective(first, stream, detached)
        elif kind in (_H2D, _D2H):
            self._copy(first, stream, bool(flag))
        elif kind == _HOST:
            knot = self._knot(WORK, 0, 0, first)
            self.rows.append((first, after, _ON_HOST, knot))
            self._epoch(knot, first, first)
        elif kind == _RECORD:
            if first in self.waits.used:
                self.made[first] = self._tail(stream)
        elif kind == _WAIT:
            self._wait(first, stream)
        elif kind == _SYNC:
            streams = [each for each in self.tails if each != APART] if target < 0 else [target]
            ends = [knot for each in streams if (knot := self._tail(each))]
            if ends:
                self._epoch(self._joint(ends, first), first, first)

    def _knot(self, kind: int, before: int, other: int, upto: int) -> int:
        self.facts.append((kind, before, other, self.base, self.since, upto))
        return len(self.facts) - 1

    def _joint(self, ends: Sequence[int], upto: int) -> int:
        """The latest of some knots, and of the launches up to an item."""
        before = ends[0] if ends else 0
        for other in ends[1:-1]:
            before = self._knot(JOIN, before, other, -1)
        return self._knot(JOIN, before, ends[-1] if len(ends) > 1 else 0, upto)

    def _tail(self, stream: int) -> int:
        """The knot at which `stream` is free, to which nothing is added from now on."""
        if stream in self.waiting:
            self.tails[stream] = self._knot(JOIN, self.tails.get(stream, 0), self.waiting.pop(stream), -1)
        self.open.pop(stream, None)
        return self.tails.get(stream, 0)

    def _run(self, first: int, after: int, stream: int) -> None:
        if stream not in self.open:
            # Launches are those of its items.
            self.open[stream] = self.tails[stream] = self._knot(JOIN, self.tails.get(stream, 0), self.waiting.pop(stream, 0), first)
        self.rows.append((first, after, stream, self.open[stream]))

    def _waits_for(self, stream: int, knot: int) -> None:
        if stream in self.waiting:
            self._tail(stream)
        self.open.pop(stream, None)
        self.waiting[stream] = knot

    def _wait(self, item: int, stream: int) -> None:
        if item in self.waits.source:
            self._waits_for(stream, self.made[self.waits.source[item]])
            # A stream that waits for the last, and does nothing more, is looked at in the end.
            self.tails.setdefault(stream, 0)

    def _collective(self, item: int, stream: int, detached: bool) -> None:
        own = APART if detached else stream
        if detached:
            self._waits_for(APART, self._tail(stream))
        self._wait(item, own)
        self._run(item, item + 1, own)
        if item in self.waits.used:
            self.made[item] = self._tail(own)

    def _copy(self, item: int, stream: int, asynchronous: bool) -> None:
        kind = TO_GPU if self.program.items[item][0] == _H2D else TO_HOST
        knot = self._knot(kind, self.tails.get(stream, 0), self.waiting.pop(stream, 0), item)
        self.tails[stream] = knot
        self.open.pop(stream, None)
        self.rows.append((item, item + 1, stream, knot))
        if not asynchronous:
            self._epoch(self._knot(JOIN, knot, 0, item), item, item)

    def _epoch(self, knot: int, since: int, begins: int) -> None:
        """The host goes on from `knot`."""
        self.base, self.since = knot, since
        self.epochs.append((knot, begins, since))
        self.open.clear()

    def _queue(self, item: int) -> None:
        """The host is never further ahead than the queue is deep."""
        tail = self._tail(0)
        if tail:
            self._epoch(self._knot(QUEUED, tail, self.looked[item - QUEUE], item), item, item + 1)

    def _closed_after(self, item: int) -> None:
        _, _, stream, knot = self.rows[-1]
        self.looked[item] = knot
        self.open.pop(stream, None)

    def _join_apart(self) -> None:
        """A phase ends: what nobody waited for is waited for now, as DDP does at the end of backward."""
        tail = self._tail(APART)
        if tail > self.apart:
            self.apart = tail
            self._waits_for(0, tail)

    def _border(self, last: int) -> None:
        self._join_apart()
        self.borders.append(self._knot(JOIN, self._tail(0), 0, last))

    def _columns(self) -> Knots:
        kind, before, other, base, since, upto = np.array(self.facts, np.int64).T.copy()
        starts, ends, streams, of = np.array(self.rows, np.int64).reshape(-1, 4).T
        order = np.lexsort((starts, of, streams))
        starts, ends, streams, of = starts[order], ends[order], streams[order], of[order]
        lengths = ends - starts
        reached = np.cumsum(lengths)
        items = np.arange(int(lengths.sum())) + np.repeat(starts - (reached - lengths), lengths)
        first, after = np.zeros(len(kind), np.int64), np.zeros(len(kind), np.int64)
        fresh = np.flatnonzero(np.diff(of, prepend=-1))
        first[of[fresh]] = (reached - lengths)[fresh]
        after[of[fresh]] = np.append(reached[fresh[1:] - 1], reached[-1:])[: len(fresh)]
        cuts = np.flatnonzero(np.diff(streams, prepend=streams[:1] - 1))
        edges = [*(reached - lengths)[cuts].tolist(), len(items)]
        epochs, begins, counted = np.array(self.epochs, np.int64).T
        return Knots(
            kind, before, other, base, since, upto, first, after, items, tuple(itertools.pairwise(edges)),
            np.array(self.borders, np.int64), epochs, begins, counted,
        )  # fmt: skip
