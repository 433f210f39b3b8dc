"""Deferred frees: a block that other streams have used can be taken again only once each of them is known to be done with it.

PyTorch looks at each allocation which streams' events have passed (process_events). Within the step whose times are known (`Pace`) an event has
passed once its stream is done with what was launched before it, by the host's clock. Before and after it the host is taken to be behind: a
first step loads the code of kernels, makes communicators and asks the driver for its segments.

A program without times cannot know, so an event counts as passed once the host has waited for its stream, or another stream for an event
that was recorded after it, or once so much has been launched since that the driver would have made the host wait. Real streams may be later
than the first two say (more is held) where the host runs ahead, or earlier than the last (less is held) where it does not.

None of this depends on what the allocator does: it is worked out for the whole program before that is walked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.replay.memory_program import ALLOC, RECORD, SYNC, USE, WAIT, Column, MemoryProgram
from membound.replay.pace import Pace

Floats = npt.NDArray[np.float64]

QUEUE: Final = 1024
"""Launches that the driver queues before it makes the host wait. NVIDIA documents no number; about a thousand is what programmers observe.
An assumption, not read from a source or measured by us."""


@dataclass(frozen=True)
class Releases:
    """What is released before which allocation, in order; columns of one entry per release."""

    event: Column
    """The allocation, an event of the program; the number of events for never."""
    block: Column

    def of(self, begin: int, end: int) -> slice:
        """Those before allocations from the event `begin` up to `end`."""
        return slice(*np.searchsorted(self.event, [begin, end]).tolist())


@dataclass(frozen=True)
class Deferred:
    """Blocks whose frees wait for other streams. Depends on no machine."""

    block: Column
    """One entry per block and stream that it waits for, in the order of frees."""
    stream: Column
    freed: Column
    """The event that frees it."""

    @classmethod
    def of(cls, program: MemoryProgram) -> Deferred:
        """Those of `program`. A stream may be noted for memory that is gone already; PyTorch ignores that."""
        uses = np.flatnonzero(program.action == USE)
        block, stream = program.target[uses], program.stream[uses]
        own = program.stream[np.minimum(program.born[block], max(len(program) - 1, 0))]
        waits = (program.born[block] < uses) & (uses < program.died[block]) & (stream != own) & (program.died[block] < len(program))
        pairs = np.unique(np.stack([program.died[block[waits]], stream[waits], block[waits]]), axis=1)
        return cls(pairs[2], pairs[1], pairs[0])

    def releases(self, program: MemoryProgram, passed: Callable[[int, Column], Column]) -> Releases:
        """When they are released, if `passed` says before which allocation a stream is known to be done with what is freed at given, rising, events:
        the number of events for never."""
        last = np.full(len(program.nbytes), -1, np.int64)
        for stream in np.unique(self.stream).tolist():
            its = self.stream == stream
            np.maximum.at(last, self.block[its], passed(stream, self.freed[its]))
        found = np.flatnonzero(last >= 0)
        order = np.lexsort([program.died[found], last[found]])
        return Releases(last[found][order], found[order])


def by_clock(program: MemoryProgram, deferred: Deferred, pace: Pace) -> Releases:
    """By the times of `pace`, for a program whose last step, or a part of it, may come again."""
    allocates = program.action == ALLOC
    looks, asks = np.flatnonzero(allocates), allocates.copy()
    asks[deferred.freed] = True
    asked = np.flatnonzero(asks)
    item = pace.at(program.row[asked])
    turn = _turns(item, pace.host)
    now = np.where(item >= 0, pace.host[item] + turn, np.inf)[allocates[asked]]

    def passed(stream: int, freed: Column) -> Column:
        at = np.searchsorted(asked, freed)
        moments = pace.done.get(stream)
        known = (item[at] >= 0) & (moments is not None)
        when = np.where(known, (pace.host if moments is None else moments)[item[at]] + turn[at], 0.0)
        # In each stream's order: what was freed later passes no sooner.
        first = np.maximum.accumulate(_first(now, np.searchsorted(looks, freed), when))
        return np.append(looks, len(program))[first]

    return deferred.releases(program, passed)


def at_once(program: MemoryProgram, deferred: Deferred) -> Releases:
    """At the first allocation after each free, as where no stream is ever behind the host: the same on every machine."""
    looks = np.flatnonzero(program.action == ALLOC)

    def passed(stream: int, freed: Column) -> Column:
        return np.append(looks, len(program))[np.searchsorted(looks, freed)]

    return deferred.releases(program, passed)


def without_times(program: MemoryProgram, deferred: Deferred, launched: Column) -> Releases:
    """By what the host and the streams wait for; `launched`: launches up to each instruction of the Trace."""
    looks = np.flatnonzero(program.action == ALLOC)

    def passed(stream: int, freed: Column) -> Column:
        # At each of `events` the stream has passed all that was freed before the event `until`.
        events, until = (np.concatenate(each) for each in zip(*_seen(program, looks, launched, stream), strict=True))
        order = np.argsort(events, kind="stable")
        events, until = events[order], np.maximum.accumulate(until[order])
        known = np.append(events, len(program))[np.searchsorted(until, freed, "right")]
        return np.append(looks, len(program))[np.searchsorted(looks, known)]

    return deferred.releases(program, passed)


def _turns(item: Column, host: Floats) -> Floats:
    """When the turn of a cycle began in which the host is at each of `item`, s; -1 in `item` where nothing is known of time."""
    before = np.concatenate([[-1], item[:-1]])
    turn, now = np.zeros(len(item)), 0.0
    for place in np.flatnonzero(item < before).tolist():
        # Another turn begins where the host is; a clock that is lost begins anew.
        now = 0.0 if item[place] < 0 else now + float(host[before[place]] - (host[item[place] - 1] if item[place] else 0.0))
        turn[place:] = now
    return turn


def _first(now: Floats, since: Column, when: Floats) -> Column:
    """The first look from each of `since` on at which it is at least `when`; the number of looks for none. `now` rises between infinities."""
    result = np.full(len(since), len(now), np.int64)
    inside = since < len(now)
    at_once = inside.copy()
    at_once[inside] = now[since[inside]] >= when[inside]
    result[at_once] = since[at_once]
    rest = np.flatnonzero(inside & ~at_once)
    for begin, end in _stretches(np.isfinite(now)):
        those = rest[(since[rest] >= begin) & (since[rest] < end)]
        result[those] = begin + np.searchsorted(np.maximum.accumulate(now[begin:end]), when[those])
    return result


def _stretches(which: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First and one after the last of each run of entries that hold."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], which, [False]]).astype(np.int8)))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _seen(program: MemoryProgram, looks: Column, launched: Column, stream: int) -> Iterator[tuple[Column, Column]]:
    """Events at which the host knows how far `stream` is, and the event before which it has passed everything."""
    action, target = program.action, program.target
    syncs = np.flatnonzero((action == SYNC) & ((target == stream) | (target < 0)))
    yield syncs, syncs
    records, waits = np.flatnonzero(action == RECORD), np.flatnonzero(action == WAIT)
    keys = target[records] * (len(program) + 1) + records
    order = np.argsort(keys)
    at = np.searchsorted(keys[order], target[waits] * (len(program) + 1) + waits) - 1
    latest = records[order][at] if len(records) else np.zeros(len(waits), np.int64)
    there = (at >= 0) & (target[latest] == target[waits]) & (program.stream[latest] == stream) if len(records) else np.zeros(len(waits), np.bool_)
    yield waits[there], latest[there]
    # What was freed a whole queue of launches ago.
    rows = program.row[looks]
    launches = np.cumsum(np.where(np.diff(rows, prepend=0) >= 0, np.diff(launched[rows], prepend=launched[0] if len(launched) else 0), 0))
    long_ago = np.searchsorted(launches, launches - QUEUE, "right") - 1
    yield looks[long_ago >= 0], looks[long_ago[long_ago >= 0]]
