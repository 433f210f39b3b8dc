"""Read clocks back: under load, to verify a switch; all along a measurement, to know what it was measured at."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Final

from membound.measure.clocks import reasons
from membound.measure.clocks.calls import megahertz
from membound.measure.clocks.driver import Driver, Reading
from membound.measure.clocks.refusals import ClockError, NotVerifiedError, ThrottledError

Load = Callable[[Sequence[str]], AbstractContextManager[None]]
"""Keeps the GPUs of these UUIDs busy within its block."""

READS: Final = 5
"""Readings in a row that must agree. Chosen."""
LOOK: Final = 0.02
"""Time between two of them, s. Chosen: NVML reads clocks through, so that a short time tells."""
PATIENCE: Final = 10.0
"""How long a load may take to reach the GPU, and a clock to follow, s. Chosen: above the start of a process that uses CUDA."""
PERIOD: Final = 0.1
"""Time between two looks while a measurement runs, s. Chosen: tens of microseconds of the driver's time in each."""


def under_load(driver: Driver, uuids: Sequence[str], load: Load, patience: float = PATIENCE, look: float = LOOK) -> dict[str, Reading]:
    """What the GPUs run at under `load`: each `READS` times the same, by memory clock. Raises `NotVerifiedError` where a load does not arrive."""
    with load(uuids):
        return {uuid: _steady(driver, uuid, patience, look) for uuid in uuids}


def _steady(driver: Driver, uuid: str, patience: float, look: float) -> Reading:
    end = time.monotonic() + patience
    alike: list[Reading] = []
    while len(alike) < READS:
        reading = driver.read(uuid)
        if reading.reasons & reasons.IDLE or (alike and not reading.holds(alike[0].memory)):
            alike = []
        if not reading.reasons & reasons.IDLE:
            alike.append(reading)
        if len(alike) < READS and time.monotonic() > end:
            raise NotVerifiedError(f"{uuid}: under load it reads {_found(reading)}: no steady clock within {patience:g} s")
        time.sleep(look)
    return alike[-1]


def _found(reading: Reading) -> str:
    return f"{megahertz(reading.memory)} ({', '.join(reasons.names(reading.reasons)) or 'no reasons'})"


@dataclass(frozen=True)
class Watched:
    """What one GPU ran at while it was measured; clocks in Hz, None where no look came to an answer."""

    looks: int = 0
    memory: tuple[int, int] | None = None
    """Lowest and highest memory clock."""
    core: tuple[int, int] | None = None
    """Lowest and highest core clock."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """In how many looks each clock event reason stood."""
    astray: int | None = None
    """The last memory clock, while the GPU was busy, that was not the one asked for."""
    failed: ClockError | None = None
    """What ended the watching before its time."""

    def with_look(self, reading: Reading, memory: int) -> Watched:
        """This, and one look more, at a GPU that is to run at `memory`, Hz."""
        counts = {**self.reasons}
        for name in reasons.names(reading.reasons):
            counts[name] = counts.get(name, 0) + 1
        # An idle GPU may lower its clocks by itself.
        strays = not reading.holds(memory) and not reading.reasons & reasons.IDLE
        spans = _widened(self.memory, reading.memory), _widened(self.core, reading.core)
        return Watched(self.looks + 1, *spans, counts, reading.memory if strays else self.astray)

    def check(self, uuid: str, memory: int) -> None:
        """Raise what spoils the measurement: `ThrottledError`, `NotVerifiedError`, or what ended the watching."""
        if self.failed is not None:
            raise self.failed
        spoiled = [name for bit, name in reasons.NAMES.items() if bit & reasons.SPOILING and name in self.reasons]
        if spoiled:
            counted = ", ".join(f"{name} in {self.reasons[name]} of {self.looks} looks" for name in spoiled)
            raise ThrottledError(f"{uuid}: held back while it was measured at {megahertz(memory)}: {counted}")
        if self.astray is not None:
            raise NotVerifiedError(f"{uuid}: set to {megahertz(memory)}, it ran at {megahertz(self.astray)} while it was measured")


def _widened(span: tuple[int, int] | None, clock: int) -> tuple[int, int]:
    return (clock, clock) if span is None else (min(span[0], clock), max(span[1], clock))


@contextmanager
def watching(driver: Driver, uuids: Sequence[str], memory: int, period: float = PERIOD) -> Iterator[Mapping[str, Watched]]:
    """Look at the GPUs' clocks while the block runs, in a thread; the first look is before it and the last one after it.

    What is yielded holds what was seen by UUID, and is complete once the block has ended.
    """
    seen = dict.fromkeys(uuids, Watched())
    stop = threading.Event()
    _look(driver, seen, memory)

    def watch() -> None:
        while not stop.wait(period):
            _look(driver, seen, memory)

    thread = threading.Thread(target=watch, name="membound-clocks", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
        _look(driver, seen, memory)


def _look(driver: Driver, seen: dict[str, Watched], memory: int) -> None:
    for uuid, watched in seen.items():
        if watched.failed is None:
            try:
                seen[uuid] = watched.with_look(driver.read(uuid), memory)
            except ClockError as error:
                seen[uuid] = dataclasses.replace(watched, failed=error)
