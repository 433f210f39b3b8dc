"""All stations of the sampler, and the lanes that they are in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from membound.measure.lanes import Clock, Lane, Station
from membound.measure.rows import Feed
from membound.measure.sensors import columns
from membound.measure.sensors.offer import Chosen


class Staff:
    """Who asks whom: the sensors' cards say who shares a lane."""

    def __init__(self) -> None:
        self.stations: list[Station] = []
        self._lanes: list[Lane] = []

    def hire(self, chosen: Sequence[Chosen], clock: Clock) -> list[Feed]:
        """Stations for the sensors of one table, on its grid."""
        feeds: list[Feed] = []
        for place, each in enumerate(chosen):
            station = Station(each.sensor, clock.period_ns * 1e-9, place)
            feeds.append(Feed(station, each.curves, columns.TABLES[each.sensor.card.table], clock.period_ns))
        lanes: dict[str, list[Station]] = {}
        # One kind of sensor after the other: what is asked first on all GPUs is of the same moment, and waits for nobody.
        kinds = list(dict.fromkeys(feed.station.sensor.card.name for feed in feeds))
        for feed in sorted(feeds, key=lambda feed: kinds.index(feed.station.sensor.card.name)):
            lanes.setdefault(feed.station.sensor.card.lane, []).append(feed.station)
            self.stations.append(feed.station)
        self._lanes += [Lane(stations, clock) for stations in lanes.values()]
        return feeds

    def start(self) -> None:
        """Let all lanes run."""
        for lane in self._lanes:
            lane.start()

    def mind(self) -> None:
        """Free the stations that wait behind one that hangs."""
        for lane in list(self._lanes):
            new = lane.split()
            if new is not None:
                self._lanes.append(new)
                new.start()

    def stop(self, patience: float) -> None:
        """Let all lanes end; one that hangs is not waited for longer than `patience` s."""
        for lane in self._lanes:
            lane.stopping = True
        for lane in self._lanes:
            lane.join(patience)

    @property
    def missed(self) -> int:
        """Ticks at which a lane was still busy with an earlier one."""
        return sum(lane.missed for lane in self._lanes)

    def document(self) -> list[dict[str, Any]]:
        """Per station, what asking has cost."""
        return [station.document() for station in self.stations]
