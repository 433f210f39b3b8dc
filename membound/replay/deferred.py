"""Which deferred frees have gone through, by the clock: the host looks at each allocation, streams are done when the `Pace` says."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from membound.replay.caching_allocator import CachingAllocator
from membound.replay.pace import Pace


class Clock:
    """The host's clock on its way through a program whose last step, or a part of it, may come again."""

    def __init__(self, pace: Pace) -> None:
        self._host = pace.host.tolist()
        self._done = {stream: moments.tolist() for stream, moments in pace.done.items()}
        # By stream: when it passes the event, and the event's mark in the allocator.
        self._events: dict[int, deque[tuple[float, float]]] = {}
        self._item = -1
        self._turn = 0.0  # When the present turn of a cycle began.

    def freed(self, streams: Iterable[int], item: int, mark: float) -> None:
        """After `item` a block was freed that `streams` use: their events have the mark `mark`."""
        self._come(item)
        for stream in streams:
            moments = self._done.get(stream)
            when = moments[item] + self._turn if item >= 0 and moments is not None else 0.0
            self._events.setdefault(stream, deque()).append((when, mark))

    def look(self, allocator: CachingAllocator, item: int) -> None:
        """After `item` the host allocates: what streams have passed by then goes through. All, where `item` is -1: nothing is known there."""
        self._come(item)
        if item < 0:
            allocator.synchronise()
            self._events.clear()
            return
        now = self._host[item] + self._turn
        for stream, events in self._events.items():
            passed = None
            while events and events[0][0] <= now:
                passed = events.popleft()[1]
            if passed is not None:
                allocator.synchronise(stream, passed)

    def _come(self, item: int) -> None:
        if item < 0:
            self._turn = 0.0
        elif item < self._item:
            # Another turn: it begins where the host is.
            self._turn += self._host[self._item] - (self._host[item - 1] if item else 0.0)
        self._item = item
