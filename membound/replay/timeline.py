"""Items on their streams: the host launches in order, streams wait for launches and events, copies for their link, collectives for the last one.

Every moment is kept with what it hangs on: of two things that must both be over, the later one's history counts. So the end of the step says
how much of it was arithmetic, HBM, launching or a link, and these add up. All row lengths, and all machines of a sweep, go side by side.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.resources import ROW, Spent, nothing
from membound.replay.back_to_back import back_to_back
from membound.replay.copy_engine import CopyEngine
from membound.replay.pricing import Prices
from membound.replay.program import Program
from membound.trace.schema import KIND

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[np.int64]

_KERNEL, _H2D, _D2H, _COLLECTIVE, _HOST = (KIND[k] for k in ("kernel", "copy_h2d", "copy_d2h", "collective", "host"))
_RECORD, _WAIT, _SYNC = (KIND[k] for k in ("record", "wait", "sync"))
_LAUNCH, _PCIE = ROW["launch"], ROW["pcie"]

# From cudaLaunchKernel's return to the kernel's start on an idle GPU, s: 2 to 3 us on Ampere and Hopper (NVIDIA forums and blog, "Understanding
# the visualization of overhead and latency in Nsight Systems").
_START: Final = 2.5e-6
# Launches that the driver queues before it makes the host wait: an assumption, as in membound.replay.releases. Looked at every so many items.
_QUEUE: Final = 1024
_LOOK: Final = 128
# Kernels in a row from which it pays to take them together.
_ROW: Final = 4


@dataclass(frozen=True)
class Timeline:
    """When items run; s since the step began. `n` items, K columns."""

    start: Floats
    """[n, K]; of host work and launches of nothing, the host's own time."""
    end: Floats
    """[n, K]"""
    host: Floats
    """When the host goes on to what follows the item; [n, K]."""
    borders: Spent
    """Where the segments of the step end, with their histories; [segments, ROWS, K]."""
    segments: Column
    """First item of each segment, one per phase of each captured micro-step; [segments]."""


def play(program: Program, prices: Prices, host: float | Floats = 1.0) -> Timeline:
    """Run `program` with `prices`. `host`: factor on launch times, one for all or one per column."""
    return _Player(program, prices, host).timeline()


def play_twice(program: Program, prices: Prices, slower: Callable[[Timeline], Floats | None]) -> tuple[Timeline, Floats | None]:
    """As `play`; then again with the factors on durations [n, K] that `slower` finds in that first play, unless it finds None.

    Items that have begun before the first collective is launched are played once: nothing runs beside them.
    """
    player = _Player(program, prices, 1.0)
    collectives = np.flatnonzero(program.kind == _COLLECTIVE)
    if not len(collectives):
        return player.timeline(), None
    player.until(int(collectives[0]) - _QUEUE - _LOOK)
    again = player.twin()
    line = player.timeline()
    factors = slower(line)
    if factors is None:
        return line, None
    again.prices = replace(prices, slower=factors)
    return again.timeline(), factors


class _Player:
    """The state of one run: moments are [ROWS, K]."""

    def __init__(self, program: Program, prices: Prices, host: float | Floats) -> None:
        self.program, self.prices = program, prices
        self.columns = prices.table.shape[2]
        self.factor = np.broadcast_to(np.asarray(host, np.float64), (self.columns,))
        self.base = nothing(self.columns)
        self.since = 0.0  # Launches since that moment of the host, s before `factor`.
        self.zero = nothing(self.columns)
        self.tails: dict[int, Spent] = {}
        self.events: dict[int, Spent] = {}
        self.communicator = self.zero
        self.engines = {kind: CopyEngine() for kind in (_H2D, _D2H)}
        self.joined: list[Spent] = []
        self.start = np.zeros((len(program), self.columns))
        self.end = np.zeros((len(program), self.columns))
        # When the host goes on: of rows of kernels, of other items as the last moment that it is known of and launches since.
        self.gone_on = np.zeros((len(program), self.columns))
        self.alone: list[int] = []
        self.bases: list[Floats] = []
        self.sinces: list[float] = []
        self.table = prices.by_entry
        self.items = program.items
        self.index, self.cost = prices.index.tolist(), prices.launch.tolist()
        # When each launch would arrive had the host nothing else to do: within a row, differences count.
        self.arriving = np.cumsum(prices.launch)[:, None] * self.factor
        self.segments = program.segments
        self.cuts = set(self.segments[1:].tolist())
        self.rows = list(_rows_of_kernels(program, self.segments))
        self.done = 0  # Rows played.
        self.borders: list[Spent] = []

    def twin(self) -> _Player:
        """Another that goes on from here, whatever becomes of this one. Moments are never changed in place."""
        other = copy.copy(self)
        other.start, other.end, other.gone_on = self.start.copy(), self.end.copy(), self.gone_on.copy()
        other.tails, other.events = dict(self.tails), dict(self.events)
        other.engines = {kind: engine.twin() for kind, engine in self.engines.items()}
        other.joined, other.borders = list(self.joined), list(self.borders)
        other.alone, other.bases, other.sinces = list(self.alone), list(self.bases), list(self.sinces)
        return other

    def timeline(self) -> Timeline:
        """All that is left, played."""
        self.until(len(self.program))
        if self.alone:
            self.gone_on[self.alone] = np.concatenate(self.bases).reshape(-1, self.columns) + np.array(self.sinces)[:, None] * self.factor
        return Timeline(self.start, self.end, self.gone_on, np.stack([*self.borders, self._end()]), self.segments)

    def until(self, end: int) -> None:
        """Play the rows that begin before the item `end`."""
        while self.done < len(self.rows) and self.rows[self.done][0] < end:
            first, after = self.rows[self.done]
            if first in self.cuts:
                self.borders.append(self._border())
            if after - first >= _ROW:
                self._kernels(first, after)
            else:
                for item in range(first, after):
                    self._one(item)
                    self.alone.append(item)
                    self.bases.append(self.base[0])
                    self.sinces.append(self.since)
            last = after - 1
            if last >= _QUEUE and not last % _LOOK:
                # The host is never further ahead than the queue is deep.
                self.host = later(self.host, self._queued(last - _QUEUE))
            self.done += 1

    @property
    def host(self) -> Spent:
        """The moment at which the host is done with all that it has launched; what sets it is another's work that it waited for."""
        if self.since:
            launches = self.since * self.factor
            self.base, self.since = self.base.copy(), 0.0
            self.base[0] += launches
            self.base[_LAUNCH] += launches
        return self.base

    @host.setter
    def host(self, moment: Spent) -> None:
        self.base, self.since = moment, 0.0

    def _one(self, item: int) -> None:
        kind, stream, target, flag, detached = self.items[item]
        index = self.index[item]
        self.since += self.cost[item]
        if kind == _KERNEL:
            slower = self.prices.slower
            self._on_stream(item, stream, self.table[index] if slower is None else self.table[index] * slower[item])
        elif kind == _COLLECTIVE:
            self._collective(item, stream, self.table[index], detached)
        elif kind in (_H2D, _D2H):
            self._copy(item, kind, stream, self.table[index], bool(flag))
        elif kind == _HOST:
            self._work(item, self.table[index])
        elif kind == _RECORD:
            self.events[target] = self._ready(stream)
        elif kind == _WAIT:
            if target in self.events:
                self.tails[stream] = later(self._ready(stream), self.events[target])
        elif kind == _SYNC:
            self._sync(target)

    def _kernels(self, first: int, after: int) -> None:
        """The kernels from `first` up to `after`, all on one stream."""
        stream = self.items[first][1]
        launched = self.arriving[first:after] - (self.arriving[first] - self.cost[first] * self.factor)
        durations = self.prices.of(first, after)
        start, end, done = back_to_back(self._ready(stream), self.host, launched + _START, durations)
        self.start[first:after], self.end[first:after], self.gone_on[first:after] = start, end, self.base[0] + launched
        self.tails[stream] = done
        self.since += sum(self.cost[first:after])

    def _ready(self, stream: int) -> Spent:
        return self.tails.get(stream, self.zero)

    def _launched(self) -> Spent:
        # As `host`, which keeps what it has summed up: most launches are asked about once.
        moment = self.base.copy()
        launches = self.since * self.factor + _START
        moment[0] += launches
        moment[_LAUNCH] += launches
        return moment

    def _mark(self, item: int, begin: Spent, end: Spent) -> None:
        self.start[item] = begin[0]
        self.end[item] = end[0]

    def _on_stream(self, item: int, stream: int, duration: Spent) -> None:
        begin = later(self._ready(stream), self._launched())
        end = begin + duration
        self.tails[stream] = end
        self._mark(item, begin, end)

    def _collective(self, item: int, stream: int, duration: Spent, detached: bool) -> None:
        begin = later(later(self._ready(stream), self._launched()), self.communicator)
        end = begin + duration
        self.communicator = end
        if detached:
            self.joined.append(end)
        else:
            self.tails[stream] = end
        self._mark(item, begin, end)

    def _copy(self, item: int, kind: int, stream: int, duration: Spent, asynchronous: bool) -> None:
        ready = later(self._ready(stream), self._launched())
        begin, until = self.engines[kind].take(self.host[0], ready[0], duration[0])
        # Where it waits for its turn, it waits for other copies: that is put down to the link.
        end = ready + duration
        end[0] = until
        end[_PCIE] += begin - ready[0]
        self.tails[stream] = end
        if not asynchronous:
            self.host = later(self.host, end)
        self.start[item], self.end[item] = begin, until

    def _work(self, item: int, duration: Spent) -> None:
        begin = self.host
        self.host = begin + duration
        self._mark(item, begin, self.host)

    def _sync(self, target: int) -> None:
        waiting = self.tails.values() if target < 0 else [self._ready(target)]
        for moment in waiting:
            self.host = later(self.host, moment)

    def _queued(self, item: int) -> Spent:
        # When that item started nobody keeps with its history: what the host waits for then is the GPU's own work, whose mix the tail has.
        tail = later(self._ready(0), self.host)
        when = self.start[item]
        share = np.where(tail[0] > 0, when / np.where(tail[0] > 0, tail[0], 1.0), 0.0)
        return tail * np.minimum(share, 1.0)

    def _border(self) -> Spent:
        """A phase ends: what nobody waited for is waited for now, as DDP does at the end of backward."""
        for moment in self.joined:
            self.tails[0] = later(self._ready(0), moment)
        self.joined.clear()
        return later(self._ready(0), self.host)

    def _end(self) -> Spent:
        self._border()
        moment = self.host
        for tail in (*self.tails.values(), self.communicator):
            moment = later(moment, tail)
        return moment


def later(a: Spent, b: Spent) -> Spent:
    """The later of two moments, column by column, with its history."""
    if a is b:
        return a
    after = b[0] > a[0]
    count = np.count_nonzero(after)
    if not count:
        return a
    return b if count == len(after) else np.where(after, b, a)


def _rows_of_kernels(program: Program, starts: Column) -> Iterator[tuple[int, int]]:
    """First item and the one after the last of each row of kernels on one stream, within a segment and between two looks at the queue;
    anything else is a row of its own."""
    count = len(program)
    kernel = program.kind == _KERNEL
    joined = np.zeros(count, np.bool_)
    joined[1:] = kernel[1:] & kernel[:-1] & (program.stream[1:] == program.stream[:-1])
    joined[starts] = False
    joined[1::_LOOK] = False
    first = np.flatnonzero(~joined)
    return zip(first.tolist(), np.append(first[1:], count).tolist(), strict=True)
