"""Traffic between the processors and their DIMMs: read and write commands, counted by the memory controllers, 64 B each."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, final

from membound.measure.sensors.base import Answer, Card, Sensor, Validity, bad, good
from membound.measure.sensors.doors import Counter, Doors
from membound.measure.sensors.files import Files

_SOURCES: Final = "/sys/bus/event_source/devices"
# One column access moves one cache line, on DDR4 and DDR5 alike (JESD79-4, JESD79-5: burst length times width of a sub-channel).
_LINE: Final = 64
# Intel: the kernel names the events itself. Granite Rapids and Sierra Forest count each half of a channel apart, as _sch0 and _sch1.
_INTEL: Final = re.compile(r"cas_count_(read|write)(_sch[01])?")
# AMD, Zen 4 and newer: event 0x0a, bit 8 for reads, bit 9 for writes (kernel, tools/perf/pmu-events/arch/x86/amdzen4, umc_cas_cmd).
_AMD: Final = (0x10A, 0x20A)


@dataclass(frozen=True)
class Event:
    """What to count, where: the kernel's number of the event source, the event, the cores that stand for their packages."""

    kind: int
    config: int
    cpus: tuple[int, ...]


@final
class HostBandwidth(Sensor):
    """Bytes per second, reads and writes together, all packages, mean since the last reading."""

    def __init__(self, doors: Doors, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises `LookupError` where no memory controller can be counted, `OSError` where it is not permitted."""
        events = list(_events(doors.files))
        if not events:
            raise LookupError("the kernel shows no counters of memory controllers")
        self._clock = clock
        self._counters: list[Counter] = []
        try:
            for event in events:
                self._counters += [doors.counter(event.kind, event.config, cpu) for cpu in event.cpus]
        except OSError:
            self.close()
            raise
        self._last = (clock(), self._total())
        source = f"perf events of the memory controllers, {len(self._counters)} counters of 64 B commands"
        self.card = Card("host.bandwidth", "perf", source, "host", 0, ("memory.bandwidth",), every, period=None, window=True)

    def _total(self) -> int:
        return sum(counter.count() for counter in self._counters)

    def read(self) -> Sequence[Answer]:
        try:
            now = (self._clock(), self._total())
        except OSError:
            return [bad(Validity.ERROR)]
        before, self._last = self._last, now
        seconds = now[0] - before[0]
        return [good((now[1] - before[1]) * _LINE / seconds)] if seconds > 0 else []

    def close(self) -> None:
        for counter in self._counters:
            counter.close()


def _events(files: Files) -> Iterator[Event]:
    for path in files.find(f"{_SOURCES}/uncore_imc*/events/cas_count_*"):
        if _INTEL.fullmatch(path.rsplit("/", 1)[1]):
            yield Event(*_source(files, path.rsplit("/events/", 1)[0], _config(files.text(path))))
    for path in files.find(f"{_SOURCES}/amd_umc_*/type"):
        for config in _AMD:
            yield Event(*_source(files, path.removesuffix("/type"), config))


def _source(files: Files, folder: str, config: int) -> tuple[int, int, tuple[int, ...]]:
    return int(files.text(f"{folder}/type")), config, _cpus(files.text(f"{folder}/cpumask"))


def _config(text: str) -> int:
    # "event=0x05,umask=0xcf": the event in bits 0 to 7, the mask in bits 8 to 15 of every Intel memory controller (their `format` files).
    terms = dict(term.split("=") for term in text.strip().split(","))
    return int(terms["event"], 16) | int(terms.get("umask", "0"), 16) << 8


def _cpus(text: str) -> tuple[int, ...]:
    # "0,28" or "0-1".
    ranges = [part.split("-") for part in text.strip().split(",")]
    return tuple(cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1))
