"""Threads that ask sensors, each on the absolute grid. A sensor that hangs is left alone in its thread, and the others go on in a new one."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from membound.measure.sensors.base import Answer, Sensor, Validity, bad

# A call that takes longer than so many ticks is taken to hang: the others are freed before their last answers are too old.
_PATIENCE: Final = 2
# Calls over which the running mean of their processor time goes.
_RUNNING: Final = 12
# What one call counts for at most in that mean, as a multiple of it: while a job makes its CUDA context the driver may hold one call for thirty times
# its cost, which says nothing of the next. Costs that stay up are taken in within some calls.
_OUTLYING: Final = 3.0
# Answers before which nothing is known to be outlying: the third is the first that a review looks at.
_KNOWN: Final = 2


@dataclass(frozen=True)
class Clock:
    """The grid: tick k is at `epoch_ns + k * period_ns` of the monotonic clock, which nobody can set."""

    epoch_ns: int
    period_ns: int

    def at(self, tick: int) -> int:
        """When tick number `tick` is, ns."""
        return self.epoch_ns + tick * self.period_ns

    def next(self) -> int:
        """Number of the first tick that is still to come."""
        return (time.monotonic_ns() - self.epoch_ns) // self.period_ns + 1


def sleep_until(moment_ns: int) -> None:
    """Sleep until that moment of the monotonic clock."""
    left = moment_ns - time.monotonic_ns()
    if left > 0:
        time.sleep(left * 1e-9)


@dataclass(frozen=True)
class Reading:
    """What a sensor answered, and when."""

    serial: int
    tick: int
    start_ns: int
    end_ns: int
    answers: Sequence[Answer]


def running(mean: float, cost: float, number: int) -> float:
    """The running mean of costs with that of call `number`, counted from 1: an outlying one, after the first two, counts for three means at most."""
    counted = cost if number <= _KNOWN else min(cost, _OUTLYING * mean)
    return mean + (counted - mean) / min(number, _RUNNING)


class Station:
    """A sensor in a lane: its last reading, and what asking has cost."""

    def __init__(self, sensor: Sensor, period: float, place: int = 0) -> None:
        self.sensor = sensor
        self._period = period
        self.every = self._ticks()
        # All are asked at the first tick; from then on, those that are asked every few ticks are spread over them.
        self._spread = place % self.every
        self.due = 0
        self.lane: Lane | None = None
        self.last: Reading | None = None
        self.calls = 0
        self.total_ns = 0
        self.most_ns = 0
        self.core_ns = 0
        self.answered = 0
        self.lately_ns = 0.0
        self.error: str | None = None

    def _ticks(self) -> int:
        # Never sooner than wished: two GPM snapshots must be far enough apart.
        return max(1, math.ceil(self.sensor.card.every / self._period - 1e-6))

    def retime(self) -> None:
        """Ask as often as the sensor's card has it by now, from the next call on."""
        self.every = self._ticks()

    def read(self, tick: int, spent: int) -> int:
        """Ask once, and keep the answer. `spent`: this thread's processor time before it, ns; returns that after it."""
        self.due = tick + self.every + (0 if self.calls else self._spread)
        start = time.monotonic_ns()
        try:
            answers = self.sensor.read()
        except Exception as error:
            # One sensor's own mistake costs its own curves, not the recording.
            self.error = f"{type(error).__name__}: {error}"
            answers = [bad(Validity.ERROR)] * len(self.sensor.card.curves)
        end, now = time.monotonic_ns(), time.thread_time_ns()
        core = now - spent
        self.calls += 1
        self.core_ns += core
        self.total_ns += end - start
        self.most_ns = max(self.most_ns, end - start)
        if answers:
            # A call too early for an answer asks nobody, and costs nothing.
            self.answered += 1
            self.lately_ns = running(self.lately_ns, core, self.answered)
            self.last = Reading(self.calls, tick, start, end, answers)
        return now

    def document(self) -> dict[str, float | str | None]:
        """What asking has cost, µs: the whole time of a call, and the processor's in it; and the sensor's own last error."""
        mean, core = (total / self.calls / 1e3 if self.calls else None for total in (self.total_ns, self.core_ns))
        return {"calls": self.calls, "mean_us": mean, "most_us": self.most_ns / 1e3, "core_us": core, "error": self.error}


class Lane(threading.Thread):
    """One thread with some stations. Skips the ticks that it could not keep: what is late is not made up for."""

    def __init__(self, stations: Sequence[Station], clock: Clock) -> None:
        super().__init__(name="lane", daemon=True)
        self._stations = list(stations)
        self._clock = clock
        self.missed = 0
        self.stopping = False
        self._at: Station | None = None
        self._since_ns = 0
        for station in stations:
            station.lane = self

    def run(self) -> None:
        # The tick just past: the first row has values then, a little late.
        tick = max(0, self._clock.next() - 1)
        while not self.stopping:
            sleep_until(self._clock.at(tick))
            self._round(tick)
            due = min((station.due for station in self._stations), default=tick + 1)
            following = max(due, self._clock.next())
            self.missed += following - due
            tick = following

    def _round(self, tick: int) -> None:
        spent = time.thread_time_ns()
        for station in self._stations:
            # Stations may have been taken away while one of them hung.
            if station.due > tick or station.lane is not self:
                continue
            self._since_ns = time.monotonic_ns()
            self._at = station
            spent = station.read(tick, spent)
            self._at = None
        self._stations = [station for station in self._stations if station.lane is self]

    def split(self) -> Lane | None:
        """If a sensor hangs here, a new lane with all the others; None where all is well or it is alone anyway."""
        hung = self._at
        if hung is None or time.monotonic_ns() - self._since_ns < _PATIENCE * self._clock.period_ns:
            return None
        others = [station for station in self._stations if station is not hung and station.lane is self]
        return Lane(others, self._clock) if others else None
