"""What is found out at the start: how often each signal really has something new, and what asking costs."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from membound.measure.sensors.base import Answer, Sensor, Validity

# Between two rounds of questions, s: finer than any signal's period (the finest known, energy, is new every 10 to 20 ms), with room for the job.
_PAUSE: Final = 0.002
# Every quick sensor is asked so often at least: the first answer of a driver may take long.
_ROUNDS: Final = 5
# Changes that make a period: fewer may be chance.
_ENOUGH: Final = 3


@dataclass(frozen=True)
class Learned:
    """Of one sensor: the median time between changes per curve, s, None where it changed too seldom to tell; and the cost of asking."""

    periods: dict[str, float | None]
    cost: float
    """Median time of a call, s: the processor's, and what is waited for the driver."""
    worst: float
    """Longest of these times, s."""
    core: float
    """Mean processor time of a call, s: what of a core it takes."""


class _Watch:
    def __init__(self, sensor: Sensor) -> None:
        self.sensor = sensor
        self.changes: list[list[float]] = [[] for _ in sensor.card.curves]
        self.costs: list[float] = []
        self.cores: list[float] = []
        self.last: Sequence[Answer] = ()

    def look(self) -> None:
        before, spent = time.perf_counter(), time.thread_time()
        answers = self.sensor.read()
        now = time.perf_counter()
        self.cores.append(time.thread_time() - spent)
        self.costs.append(now - before)
        for place, (old, new) in enumerate(zip(self.last, answers, strict=False)):
            if new[1] is Validity.OK and old[0] != new[0]:
                self.changes[place].append(now)
        self.last = answers or self.last

    def learned(self) -> Learned:
        periods = {curve: _period(times) for curve, times in zip(self.sensor.card.curves, self.changes, strict=True)}
        return Learned(periods, statistics.median(self.costs), max(self.costs), statistics.fmean(self.cores))


def learn(sensors: Sequence[Sensor], seconds: float) -> list[Learned]:
    """Ask all sensors over and over for `seconds`, five times at least; those that count between two calls are asked once."""
    watches = [_Watch(sensor) for sensor in sensors]
    quick = [watch for watch in watches if not watch.sensor.card.window]
    end = time.perf_counter() + seconds
    rounds = 0
    while quick and (rounds < _ROUNDS or time.perf_counter() < end):
        for watch in quick:
            watch.look()
        rounds += 1
        time.sleep(_PAUSE)
    # Last: by then a window has passed since they were opened.
    for watch in watches:
        if watch not in quick:
            watch.look()
    return [watch.learned() for watch in watches]


def _period(times: Sequence[float]) -> float | None:
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(gaps) if len(gaps) >= _ENOUGH else None
