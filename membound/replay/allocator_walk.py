"""Runs a memory program through the caching allocator and notes what it holds after each event.

Where a cycle's turn ends with the allocator as another turn of it began, what follows is known, and is not walked: the same requests to the same
free memory have the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from membound.replay.allocator_blocks import PENDING, Block
from membound.replay.caching_allocator import CachingAllocator, OutOfMemory
from membound.replay.cycles import Cycle
from membound.replay.memory_program import ALLOC, EMPTY, FREE, Column, MemoryProgram
from membound.replay.releases import Releases

# What is walked beside allocations and frees: a free that other streams hold up, and its end.
_DEFER: Final = 100
_RELEASE: Final = 101


@dataclass(frozen=True)
class _Doings:
    """What the allocator is asked, in order; columns of one entry each."""

    event: Column
    """Event of the program that this belongs to."""
    action: Column
    block: Column
    nbytes: Column
    stream: Column

    @classmethod
    def of(cls, program: MemoryProgram, releases: Releases) -> _Doings:
        deferred = np.zeros(len(program.nbytes), np.bool_)
        deferred[releases.block] = True
        events = np.flatnonzero((program.action == ALLOC) | (program.action == FREE) | (program.action == EMPTY))
        action, block = program.action[events], np.where(program.action[events] == EMPTY, 0, program.target[events])
        action = np.where((action == FREE) & deferred[block], _DEFER, action)
        # Before the allocation that each comes with.
        at = np.searchsorted(events, releases.event)
        event, action = np.insert(events, at, releases.event), np.insert(action, at, _RELEASE)
        block = np.insert(block, at, releases.block)
        return cls(event, action, block, program.nbytes[block], np.append(program.stream, 0)[event])

    def between(self, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Action, block, bytes and stream of each of those that belong to the events from `begin` up to `end`."""
        part = slice(*np.searchsorted(self.event, [begin, end]).tolist())
        return zip(*(column[part].tolist() for column in (self.action, self.block, self.nbytes, self.stream)), strict=True)

    def notes(self, begin: int, end: int) -> slice:
        """Which of what is noted belong to these events: allocations and emptied caches."""
        noted = self.event[(self.action == ALLOC) | (self.action == EMPTY)]
        return slice(*np.searchsorted(noted, [begin, end]).tolist())


@dataclass(frozen=True)
class _Border:
    """How things stand between two turns of a cycle."""

    state: tuple[object, ...]
    retries: int


@dataclass
class Walk:
    """An allocator on its way through a program: call `go`."""

    allocator: CachingAllocator
    program: MemoryProgram
    releases: Releases
    cycles: Sequence[Cycle] = ()
    failure: OutOfMemory | None = None
    """Why the walk ended early; the event at which it did is the one after the last noted."""
    retries: int = 0
    """Times that the allocator had to give back its cache to go on."""
    _sizes: list[int] = field(default_factory=list)
    """Bytes of each block allocated, 0 for each emptied cache."""
    _reserved: list[int] = field(default_factory=list)
    """Bytes held of the device after each of these."""
    _live: dict[int, Block] = field(default_factory=dict)
    _waiting: dict[int, tuple[Block, int]] = field(default_factory=dict)
    """Blocks whose frees wait, each for an event of its own, whose number in the allocator goes with it."""
    _at: int = 0
    """Events that are done."""

    def go(self) -> Walk:
        """To the end, or to the first allocation for which there is no memory."""
        doings = _Doings.of(self.program, self.releases)
        met: list[dict[int, _Border]] = [{} for _ in self.cycles]
        stops = sorted((at, number, turn) for number, cycle in enumerate(self.cycles) for turn, at in enumerate(cycle.borders()[:-1]))
        for at, number, turn in stops:
            if at < self._at:
                continue
            self._until(at, doings)
            if self.failure is not None:
                return self
            met[number][turn] = _Border(self._state(self.cycles[number], turn), self.retries)
            self._skip(self.cycles[number], turn, met[number], doings)
        self._until(len(self.program), doings)
        return self

    def _until(self, end: int, doings: _Doings) -> None:
        """Walk on up to the event `end`."""
        allocator, live, waiting, sizes, reserved = self.allocator, self._live, self._waiting, self._sizes, self._reserved
        before = allocator.num_alloc_retries
        try:
            for action, name, nbytes, stream in doings.between(self._at, end):
                if action == ALLOC:
                    block = live[name] = allocator.malloc(nbytes, stream)
                    sizes.append(block.size)
                    reserved.append(allocator.reserved)
                elif action == FREE:
                    allocator.free(live.pop(name))
                elif action == _DEFER:
                    block, event = live.pop(name), -1 - name
                    waiting[name] = block, event
                    allocator.record_stream(block, event)
                    allocator.free(block)
                elif action == _RELEASE:
                    allocator.synchronise(waiting.pop(name)[1])
                else:
                    allocator.empty_cache()
                    sizes.append(0)
                    reserved.append(allocator.reserved)
        except OutOfMemory as failure:
            self.failure = failure
        self.retries += allocator.num_alloc_retries - before
        self._at = end

    def _state(self, cycle: Cycle, turn: int) -> tuple[object, ...]:
        """All that decides what the next turn of `cycle` gets: what is free, where what it will free lies, and which frees wait."""
        places = [self._live[name].address for name in cycle.handed_on[turn].tolist()]
        waiting = [(self._at - self.program.died[name], block.address) for name, (block, _) in self._waiting.items() if block.state == PENDING]
        return self.allocator.idle(), places, waiting

    def _skip(self, cycle: Cycle, turn: int, met: dict[int, _Border], doings: _Doings) -> None:
        """Take over the answers of earlier turns, where the next one begins as one of them did."""
        borders, left = cycle.borders(), cycle.turns + 1 - turn
        for earlier in range(turn - 1, -1, -1):
            period = turn - earlier
            sources = [earlier + number % period for number in range(left)]
            at_end = borders[-1] == len(self.program)
            if earlier not in met or met[earlier].state != met[turn].state or (left % period and not at_end):
                continue
            if all(self._alike(borders[source], borders[turn + number], cycle.length) for number, source in enumerate(sources)):
                for source in sources:
                    noted = doings.notes(borders[source], borders[source + 1])
                    self._sizes += self._sizes[noted]
                    self._reserved += self._reserved[noted]
                    self.retries += met[source + 1].retries - met[source].retries
                self._rename(cycle, turn)
                self._at = borders[-1]
                return

    def _alike(self, one: int, other: int, length: int) -> bool:
        """Whether the turns that begin at the events `one` and `other` release the same at the same points."""
        here, there = (self.releases.of(begin, begin + length) for begin in (one, other))
        event, freed = self.releases.event, self.program.died[self.releases.block]
        return np.array_equal(event[here] - one, event[there] - other) and np.array_equal(freed[here] - one, freed[there] - other)

    def _rename(self, cycle: Cycle, turn: int) -> None:
        """Call what there is after `turn` as it is called after the last one, which ends alike."""
        shift = cycle.borders()[-1] - self._at
        blocks = [self._live.pop(name) for name in cycle.handed_on[turn].tolist()]
        self._live.update(zip(cycle.handed_on[-1].tolist(), blocks, strict=True))
        self._waiting = {int(self.program.target[self.program.died[name] + shift]): each for name, each in self._waiting.items()}

    def columns(self) -> tuple[Column, Column]:
        """For each event that was reached: bytes that it adds (alloc) or takes away (free, negative), and bytes held of the device after it."""
        action = self.program.action
        noted = np.flatnonzero((action == ALLOC) | (action == EMPTY))
        count = len(action) if self.failure is None else int(noted[len(self._sizes)])
        noted = noted[: len(self._sizes)]
        sizes, latest = np.zeros(count, np.int64), np.zeros(count, np.int64)
        sizes[noted] = self._sizes
        frees = np.flatnonzero(action[:count] == FREE)
        sizes[frees] = -sizes[self.program.born[self.program.target[frees]]]
        latest[noted] = np.arange(1, len(noted) + 1)
        return sizes, np.append(0, np.array(self._reserved, np.int64))[np.maximum.accumulate(latest)]
