"""From a Source to the machine that it names."""

from __future__ import annotations

from membound.measure.sensors.doors import Doors
from membound.measure.source import Source


def open_doors(source: Source) -> Doors:
    """The machine behind `source`. Raises `UnknownNameError` and `RecordError` for a recorded one that is not there or not readable."""
    if source.real:
        from membound.measure.sensors.real import RealDoors

        return RealDoors()
    from membound.measure.recorded.machine import open_recorded

    return open_recorded(source)
