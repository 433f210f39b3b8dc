"""Which waits of a program can hold anything up: for an event, for the last collective. The others wait for what is over by then on any machine.

A stream that has waited for another knows all that the other knew then, as vector clocks do (F. Mattern, "Virtual time and global states of
distributed systems", 1989). Engines record and wait far more often than that changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from membound.trace.schema import KIND

if TYPE_CHECKING:
    from membound.replay.program import Program

_KERNEL, _H2D, _D2H, _COLLECTIVE = (KIND[kind] for kind in ("kernel", "copy_h2d", "copy_d2h", "collective"))
_RECORD, _WAIT = KIND["record"], KIND["wait"]

APART: Final = -1
"""Stands for a stream: the one of collectives that nobody waits for before the phase ends."""


@dataclass
class Waits:
    """What of a program's waiting counts."""

    source: dict[int, int] = field(default_factory=dict)
    """By item that must wait: the record, or the collective, that it waits for."""
    used: set[int] = field(default_factory=set)
    """Those records and collectives."""


def waits(program: Program, rows: Iterable[tuple[int, int]]) -> Waits:
    """Those of `program`, whose `rows` are first items and the ones after the last; all items of a row are of one kind, on one stream."""
    walk = _Walk()
    starts = set(program.segments.tolist())
    for first, after in rows:
        kind, stream, target, _, detached = program.items[first]
        if first in starts:
            walk.joins(first)
        if kind in (_KERNEL, _H2D, _D2H):
            walk.last[stream] = after - 1
        elif kind == _COLLECTIVE:
            walk.collective(first, stream, detached)
        elif kind == _RECORD:
            walk.events[target] = walk.now(stream, first)
        elif kind == _WAIT and target in walk.events:
            walk.waits(first, stream, walk.events[target])
    return walk.found


_Clock = dict[int, int]


@dataclass
class _Moment:
    """A stream at an item, `at`: its last item that took time or waited, and what it knew to be over of the others."""

    at: int
    stream: int
    last: int
    clock: _Clock


@dataclass
class _Walk:
    found: Waits = field(default_factory=Waits)
    last: dict[int, int] = field(default_factory=dict)
    clocks: dict[int, _Clock] = field(default_factory=dict)
    events: dict[int, _Moment] = field(default_factory=dict)
    communicator: _Moment | None = None

    def now(self, stream: int, item: int) -> _Moment:
        return _Moment(item, stream, self.last.get(stream, -1), dict(self.clocks.get(stream, ())))

    def waits(self, item: int, stream: int, moment: _Moment) -> None:
        """`stream` goes on no earlier than `moment`."""
        clock = self.clocks.setdefault(stream, {})
        if moment.stream == stream or moment.last <= clock.get(moment.stream, -1):
            return
        self.found.source[item] = moment.at
        self.found.used.add(moment.at)
        self._learns(clock, moment)
        self.last[stream] = item

    def collective(self, item: int, stream: int, detached: bool) -> None:
        own = APART if detached else stream
        if detached:
            # It starts where its stream is, and holds up nothing there.
            self._learns(self.clocks.setdefault(APART, {}), self.now(stream, item))
        if self.communicator is not None:
            self.waits(item, own, self.communicator)
        self.last[own] = item
        self.communicator = self.now(own, item)

    def joins(self, item: int) -> None:
        """Stream 0 waits for what stands apart: nobody who has waited for stream 0 knows of that."""
        if APART in self.last:
            self.last[0] = max(self.last.get(0, -1), item - 1)

    @staticmethod
    def _learns(clock: _Clock, moment: _Moment) -> None:
        for stream, last in (*moment.clock.items(), (moment.stream, moment.last)):
            if last > clock.get(stream, -1):
                clock[stream] = last
