"""The knots of a program, tied in one walk over it: where a stream waits, or is waited for; where the host waits or works; copies; ends of phases."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from membound.replay.knots import JOIN, QUEUED, TO_GPU, TO_HOST, WORK, Knots
from membound.replay.waits import APART, Waits, waits
from membound.trace.schema import KIND

if TYPE_CHECKING:
    from membound.replay.program import Program

_KERNEL, _H2D, _D2H, _COLLECTIVE, _HOST = (KIND[k] for k in ("kernel", "copy_h2d", "copy_d2h", "collective", "host"))
_RECORD, _WAIT, _SYNC = (KIND[k] for k in ("record", "wait", "sync"))
_TIMED: Final = (_KERNEL, _H2D, _D2H, _COLLECTIVE, _HOST)

# Launches that the driver queues before it makes the host wait: an assumption, as in membound.replay.releases. Looked at every so many items.
_QUEUE: Final = 1024
_LOOK: Final = 128

# Stands for the stream of host work.
_ON_HOST: Final = -2


def tied(program: Program) -> Knots:
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
    # What the host waits for is a row of its own.
    joined[program.waited] = False
    joined[1:] &= ~program.waited[:-1]
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
        looked = (np.isin(program.kind, _TIMED) & (np.arange(len(program)) + _QUEUE <= last)).tolist()
        for first, after in rows:
            if first in cuts:
                self._border(first - 1)
            self._row(first, after)
            end = after - 1
            if not end % _LOOK:
                if looked[end]:
                    self._closed_after(end)
                if end - _QUEUE in self.looked:
                    self._queue(end)
        self._join_apart()
        ends = [self._tail(stream) for stream in list(self.tails)]
        self.borders.append(self._joint(ends, last))
        return self._columns()

    def _row(self, first: int, after: int) -> None:
        kind, stream, target, flag, detached = self.program.items[first]
        if kind == _KERNEL:
            self._run(first, after, stream)
            if self.program.waited[first]:
                self._epoch(self._joint([self._tail(stream)], first), first, first)
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
            self._epoch(self._knot(QUEUED, tail, self.looked[item - _QUEUE], item), item, item + 1)

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
