"""Runs a memory program through the caching allocator and notes what it holds after each event.

Deferred frees: PyTorch looks at each allocation which streams' events have passed. Within the step whose times are known (`Pace`) an event has
passed once its stream is done with what was launched before it, by the host's clock. Before and after it the host is taken to be behind: a
first step loads the code of kernels, makes communicators and asks the driver for its segments.

A program replayed without time cannot know, so an event counts as passed once the host has waited for its stream, or another stream for an event
that was recorded after it, or once so much has been launched since that the driver would have made the host wait. Real streams may be later
than the first two say (more is held) where the host runs ahead, or earlier than the last (less is held) where it does not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from membound.replay.allocator_blocks import Block
from membound.replay.caching_allocator import CachingAllocator, OutOfMemory
from membound.replay.deferred import Clock
from membound.replay.memory_program import ALLOC, EMPTY, FREE, RECORD, SYNC, USE, WAIT, MemoryProgram
from membound.replay.pace import Pace

# Launches that the driver queues before it makes the host wait. NVIDIA documents no number; about a thousand is what programmers observe.
# An assumption, not read from a source or measured by us.
QUEUE = 1024


@dataclass
class Walk:
    """An allocator on its way through a program: call `go` for each part of it."""

    allocator: CachingAllocator
    launched: npt.NDArray[np.int64]
    """Launches up to each instruction of the Trace."""
    pace: Pace | None = None
    """What is known of time."""
    sizes: list[int] = field(default_factory=list)
    """Bytes that each event adds (alloc) or takes away (free, negative)."""
    reserved: list[int] = field(default_factory=list)
    """Bytes held of the device after each event."""
    failure: OutOfMemory | None = None
    """Why the walk ended early; the event at which it did is the one after the last noted."""
    _live: dict[int, Block] = field(default_factory=dict)
    _recorded: dict[int, tuple[int, int]] = field(default_factory=dict)
    _queue: deque[tuple[int, int]] = field(default_factory=deque)
    _launches: int = 0
    _row: int = 0
    _clock: Clock | None = None

    def __post_init__(self) -> None:
        if self.pace is not None:
            self._clock = Clock(self.pace)

    def go(self, part: MemoryProgram) -> None:
        """Run `part`; stops at the first allocation for which there is no memory."""
        allocator, live, sizes, reserved = self.allocator, self._live, self.sizes, self.reserved
        nbytes = part.nbytes.tolist()
        deferring = bool(np.isin(part.action, USE).any())
        # Of each event, how far time has come; the instruction's row where nothing is known of time.
        clock, pace = self._clock, self.pace
        at = part.row if pace is None else pace.at(part.row)
        events = zip(part.action.tolist(), at.tolist(), part.target.tolist(), part.stream.tolist(), strict=True)
        for action, row, target, stream in events:
            if action == ALLOC:
                if deferring and clock is not None:
                    clock.look(allocator, row)
                elif deferring:
                    self._pass_what_must_have(row)
                try:
                    block = live[target] = allocator.malloc(nbytes[target], stream)
                except OutOfMemory as failure:
                    self.failure = failure
                    return
                sizes.append(block.size)
            elif action == FREE:
                block = live.pop(target)
                sizes.append(-block.size)
                if clock is not None and block.used_on is not None:
                    clock.freed(block.used_on, row, len(sizes))
                allocator.free(block, len(sizes))
            else:
                self._other(action, target, stream)
                sizes.append(0)
            reserved.append(allocator.reserved)

    def _pass_what_must_have(self, row: int) -> None:
        """Let through what was freed a whole queue of launches ago."""
        counted = self.launched
        self._launches += int(counted[row] - counted[self._row]) if row >= self._row else 0  # a new turn of a cycle begins
        self._row = row
        self._queue.append((self._launches, len(self.sizes)))
        passed = 0
        while self._queue[0][0] <= self._launches - QUEUE:
            passed = self._queue.popleft()[1]
        if passed:
            self.allocator.synchronise(None, passed)

    def _other(self, action: int, target: int, stream: int) -> None:
        if action == USE:
            # A stream may be noted for memory that is gone already; PyTorch ignores that too.
            if target in self._live:
                self.allocator.record_stream(self._live[target], stream)
        elif action == EMPTY:
            self.allocator.empty_cache()
        elif self._clock is not None:
            return  # Streams' waits and the host's are in the times.
        elif action == RECORD:
            self._recorded[target] = (stream, len(self.sizes))
        elif action == WAIT:
            if target in self._recorded:
                recorded_on, when = self._recorded[target]
                self.allocator.synchronise(recorded_on, when)
        elif action == SYNC:
            self.allocator.synchronise(target if target >= 0 else None)

    def columns(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """`sizes` and `reserved` as arrays, B."""
        return np.array(self.sizes, np.int64), np.array(self.reserved, np.int64)
