"""What is replayed of a Trace's GPU memory: its program, the repeats of what was captured once, and further turns of the last step."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from membound.replay.cycles import TURNS, Cycle, Flags, again, step_begins, with_middle_repeated
from membound.replay.memory_program import Column, MemoryProgram, program
from membound.replay.pace import Pace
from membound.replay.releases import Deferred, Releases, at_once, by_clock, without_times
from membound.spec.machine import Architecture
from membound.trace.schema import KIND, Trace


@dataclass(frozen=True)
class Script:
    """The program of a Trace on GPUs of one architecture, whatever else they are."""

    program: MemoryProgram
    """The whole, and then the turns after it."""
    count: int
    """Events of the whole."""
    captured: Flags
    """Which of the whole's events were captured."""
    cycles: tuple[Cycle, ...]
    last_step: int
    """First event of the last step."""
    launched: Column
    """Launches up to each instruction."""

    @functools.cached_property
    def content(self) -> bytes:
        """SHA-256 of what an allocator is asked."""
        asked = self.program
        columns = (asked.action, asked.target, asked.stream, asked.nbytes)
        return hashlib.sha256(b"".join(np.ascontiguousarray(column).data for column in columns)).digest()

    @functools.cached_property
    def deferred(self) -> Deferred:
        """Frees that wait for other streams."""
        return Deferred.of(self.program)

    @functools.cached_property
    def at_once(self) -> Releases:
        """When these go through where no stream is ever behind the host."""
        return at_once(self.program, self.deferred)

    def releases(self, pace: Pace | None) -> Releases:
        """When these go through: by the times of `pace`, or without any."""
        if pace is None:
            return without_times(self.program, self.deferred, self.launched)
        return by_clock(self.program, self.deferred, pace)


class Scripts:
    """The scripts of one Trace by architecture, each made once."""

    def __init__(self, trace: Trace, varied: Callable[[Architecture], Script | None] = lambda architecture: None) -> None:
        """`varied` makes the script of rows of differing length, where it can."""
        self.trace = trace
        self._make_varied = varied
        self._known: dict[Architecture, Script] = {}
        self._varied: dict[Architecture, Script | None] = {}

    def of(self, architecture: Architecture) -> Script:
        """The one for GPUs of `architecture`."""
        if architecture not in self._known:
            self._known[architecture] = _script(self.trace, architecture)
        return self._known[architecture]

    def varied(self, architecture: Architecture) -> Script | None:
        """The one over rows of the data's own lengths; None where all are as long, or their sizes are not known."""
        if architecture not in self._varied:
            self._varied[architecture] = self._make_varied(architecture)
        return self._varied[architecture]


def _script(trace: Trace, architecture: Architecture) -> Script:
    once = captured_once(trace, architecture)
    whole, cycles = once.program, list(once.cycles)
    repeated = again(whole, once.last_step, len(whole), TURNS) if trace.header.steps > 0 else None
    if repeated is None:
        return once
    cycles += [repeated.cycle, *(each for cycle in cycles for each in repeated.inner(cycle))]
    return replace(once, program=whole.joined(repeated.turns), cycles=tuple(cycles))


def captured_once(trace: Trace, architecture: Architecture) -> Script:
    """The script that ends with the captured last step, its middle micro-step repeated."""
    whole = program(trace, architecture)
    last_step = whole.until(step_begins(trace))
    whole, captured, middle = with_middle_repeated(whole, trace, min(trace.header.repeat - 1, TURNS))
    return Script(whole, len(whole), captured, () if middle is None else (middle,), last_step, _launched(trace))


def _launched(trace: Trace) -> Column:
    kinds = [KIND[name] for name in ("kernel", "copy_h2d", "copy_d2h", "collective")]
    return np.cumsum(np.isin(trace.instructions["kind"], kinds)).astype(np.int64)
