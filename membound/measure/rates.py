"""How often the sampler asks each of its sensors: set by what calls cost at the start, and anew where they cost something else beside a job."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from membound.measure.sensors.offer import Chosen
from membound.measure.staff import Staff
from membound.measure.stretch import BUDGET, intervals, why

# Between two reviews, s: some calls of every sensor.
_REVIEW: Final = 2.0
# Before so many answers beside the job, what was learned at rest stands.
_FEW: Final = 3
# Costs waver: the budget must be passed by this factor, or a sensor be due twice as often, before anything is changed.
_OVER: Final = 1.1
_OFTENER: Final = 0.5
# Changes that the manifest lists of a sensor: the first ones.
_LISTED: Final = 20


class Rates:
    """Intervals of all sensors of the sampler. Those of the GPUs share the budget; those of the host are asked as they wish."""

    def __init__(self, chosen: Sequence[Chosen], period: float, host_period: float) -> None:
        self._chosen = chosen
        self._grids = [period if each.sensor.card.table == "gpu" else host_period for each in chosen]
        self._wished = [each.sensor.card for each in chosen]
        self._shared = [place for place, each in enumerate(chosen) if each.sensor.card.table == "gpu"]
        self._costs = [0.0] * len(chosen)
        self._changes: list[list[dict[str, float]]] = [[] for _ in chosen]
        self._reviewed = 0.0

    def set(self, costs: Sequence[float], now: float) -> None:
        """Let calls cost `costs` s of a core, and set the cards accordingly. `now`: s since the recording's moment 0."""
        self._costs = list(costs)
        self._take(self._intervals(), now)

    def review(self, staff: Staff, now: float) -> None:
        """Where the calls that were made cost something else by now, ask less often, or more often again."""
        if now - self._reviewed < _REVIEW:
            return
        self._reviewed = now
        stations = {id(station.sensor): station for station in staff.stations}
        for place, each in enumerate(self._chosen):
            station = stations.get(id(each.sensor))
            if station is not None and station.answered >= _FEW:
                self._costs[place] = station.lately_ns * 1e-9
        found = self._intervals()
        oftener = any(every <= _OFTENER * self._chosen[place].sensor.card.every for place, every in zip(self._shared, found, strict=True))
        if self._spent() > _OVER * BUDGET or oftener:
            self._take(found, now)
            for station in stations.values():
                station.retime()

    def document(self) -> dict[str, float]:
        """What all calls may take of a core, and what they take by their costs as they are known."""
        return {"budget_share": BUDGET, "core_share": self._spent()}

    def documents(self) -> list[dict[str, Any]]:
        """Per sensor: how often it is asked, how often it wished to be, why, what that takes, and how that changed during the recording."""
        rows = zip(self._chosen, self._wished, self._grids, self._costs, self._changes, strict=True)
        return [
            {
                "asked_every_s": each.sensor.card.every, "wished_every_s": wished.every, "asked_by": why(each.sensor.card, wished.every, grid),
                "core_us": cost * 1e6, "core_share": cost / each.sensor.card.every, "changes": changes,
            }
            for each, wished, grid, cost, changes in rows
        ]  # fmt: skip

    def _intervals(self) -> list[float]:
        if not self._shared:
            return []
        cards, costs = [self._wished[place] for place in self._shared], [self._costs[place] for place in self._shared]
        return intervals(cards, costs, self._grids[self._shared[0]])

    def _take(self, found: Sequence[float], now: float) -> None:
        for place, every in zip(self._shared, found, strict=True):
            sensor = self._chosen[place].sensor
            if every != sensor.card.every:
                sensor.card = dataclasses.replace(sensor.card, every=every)
                if len(self._changes[place]) < _LISTED:
                    self._changes[place].append({"at_s": now, "asked_every_s": every})

    def _spent(self) -> float:
        """Share of a core of all calls that share the budget."""
        return sum(self._costs[place] / self._chosen[place].sensor.card.every for place in self._shared)
