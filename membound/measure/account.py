"""What the sampler tells of itself and its sensors, through the shared page: for the manifest."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from membound.measure import priority
from membound.measure.control import Control, State
from membound.measure.learn import Learned, learn
from membound.measure.rates import Rates
from membound.measure.sensors.offer import Offer
from membound.measure.staff import Staff

# How often it tells its costs, and how often all of it, s.
_EVERY: Final = 1.0
_ALL_EVERY: Final = 10.0


class Account:
    """One sampler's account."""

    def __init__(self, control: Control, plan: dict[str, Any], found: Offer) -> None:
        self._control = control
        self._plan = plan
        self._offer = found
        self._priority = "ordinary"
        self._learned: list[Learned] = []
        self._rates = Rates(found.chosen, plan["period"], plan["host_period"])
        # One that takes the place of a killed one goes on with what that had learned: samples are lost meanwhile.
        self._known = {(each["name"], each["key"]): each["learned_period_s"] for each in control.told().get("sensors", [])}
        self._told_ns = 0
        self._told_all_ns = 0
        self.missed = 0

    def learn(self) -> None:
        """Find native periods and costs, and ask those less often that would cost too much."""
        seconds = 0.0 if self._control.get("epoch_ns") else self._plan["learn"]
        self._learned = learn([each.sensor for each in self._offer.chosen], seconds)
        self._rates.set([each.core for each in self._learned], 0.0)

    def begin(self) -> None:
        """Ready."""
        self._priority = priority.raise_own()
        now = time.monotonic_ns()
        # What was missed before a sampler was killed counts on.
        self.missed = self._control.get("ticks_missed")
        self._control.tell(self._document(None))
        self._control.set("began_ns", now)
        self._control.set("cpu_began_ns", time.process_time_ns())
        self._control.set("cpu_ns", time.process_time_ns())
        self._control.set("beat_ns", now)
        self._control.set("state", State.READY)

    def maybe_tell(self, now: int, staff: Staff) -> None:
        """At every tick: a sign of life each second."""
        if now - self._told_ns > _EVERY * 1e9:
            self._told_ns = now
            self._costs(now, staff)
            self._rates.review(staff, (now - self._control.get("epoch_ns")) * 1e-9)
        if now - self._told_all_ns > _ALL_EVERY * 1e9:
            self._told_all_ns = now
            self._control.tell(self._document(staff))

    def tell(self, staff: Staff) -> None:
        """All of it, for the last time."""
        self._costs(time.monotonic_ns(), staff)
        self._control.tell(self._document(staff))

    def _costs(self, now: int, staff: Staff) -> None:
        self._control.set("beat_ns", now)
        self._control.set("cpu_ns", time.process_time_ns())
        self._control.set("ticks_missed", self.missed)
        self._control.set("reads_missed", staff.missed)

    def _document(self, staff: Staff | None) -> dict[str, Any]:
        asked = [None] * len(self._offer.chosen) if staff is None else self._by_sensor(staff)
        rows = zip(self._offer.chosen, self._rates.documents(), self._learned, asked, strict=True)
        return {
            "python": ".".join(str(part) for part in sys.version_info[:3]),
            "priority": self._priority,
            "calls": self._rates.document(),
            "gpus": list(self._offer.gpus),
            "hardware": self._offer.hardware,
            "sensors": [_sensor(*row, self._known) for row in rows],
            "gaps": [dataclasses.asdict(gap) | {"validity": gap.validity.name.lower()} for gap in self._offer.gaps],
        }

    def _by_sensor(self, staff: Staff) -> list[Any]:
        found = {id(station.sensor): station.document() for station in staff.stations}
        return [found.get(id(each.sensor)) for each in self._offer.chosen]


def _sensor(chosen: Any, rate: dict[str, Any], learned: Learned, asked: Any, known: Mapping[tuple[str, int], Mapping[str, Any]]) -> dict[str, Any]:
    card = chosen.sensor.card
    periods = known.get((card.name, card.key)) or learned.periods
    return {
        "name": card.name, "tier": card.tier, "source": card.source, "table": card.table, "key": card.key, "curves": list(chosen.curves),
        **rate,
        "documented_period_s": {curve: card.documented(curve) for curve in chosen.curves},
        "learned_period_s": {curve: periods.get(curve) for curve in chosen.curves},
        "cost_us": learned.cost * 1e6, "worst_cost_us": learned.worst * 1e6, "learned_core_us": learned.core * 1e6,
        "asked": asked,
    }  # fmt: skip
