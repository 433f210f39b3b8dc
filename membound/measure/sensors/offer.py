"""What a machine offers: its sensors, each curve given to the best that answers, and the gaps, each with its cure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from membound.measure.sensors import columns, facts, gpm
from membound.measure.sensors.base import REASONS, Gap, Sensor, Validity
from membound.measure.sensors.doors import Doors
from membound.measure.sensors.host_offer import host_sensors
from membound.measure.sensors.nvml import Nvml, Refused
from membound.measure.sensors.nvml_offer import gpu_sensors, no_driver

# Such an answer to the first question will not change while the job runs.
_FINAL: Final = {Validity.NOT_SUPPORTED, Validity.NO_PERMISSION}


@dataclass(frozen=True)
class Chosen:
    """A sensor, and those of its curves that are taken from it: for the others a better one was found."""

    sensor: Sensor
    curves: tuple[str, ...]


@dataclass(frozen=True)
class Offer:
    """All that one machine can tell."""

    chosen: tuple[Chosen, ...]
    gaps: tuple[Gap, ...]
    gpus: tuple[int, ...]
    hardware: dict[str, Any]
    nvml: Nvml | None

    def close(self) -> None:
        """Give everything back."""
        for each in self.chosen:
            each.sensor.close()
        if self.nvml is not None:
            self.nvml.close()


def offer(doors: Doors, gpus: Sequence[int] | None, period: float, host_period: float, hbm: str) -> Offer:
    """Open every sensor that answers. `gpus` None: all; `hbm` "pm": with performance-monitor sampling. Raises `LookupError` for an unknown GPU."""
    sensors, gaps = host_sensors(doors, host_period)
    nvml: Nvml | None = None
    numbers: tuple[int, ...] = ()
    try:
        nvml = doors.nvml()
        numbers = _numbers(nvml, gpus)
    except (Refused, ImportError) as error:
        gaps.append(no_driver(error))
    for gpu in numbers:
        assert nvml is not None
        of_gpu, missing = gpu_sensors(doors, nvml, gpu, period, hbm)
        sensors += of_gpu
        gaps += missing
    chosen, refused = _choose(sensors)
    hardware = facts.hardware(doors.files, nvml, numbers)
    return Offer(tuple(chosen), (*gaps, *refused, *_absent(chosen, [*gaps, *refused], numbers)), numbers, hardware, nvml)


def _numbers(nvml: Nvml, gpus: Sequence[int] | None) -> tuple[int, ...]:
    count = int(nvml.ask("count"))
    unknown = [gpu for gpu in gpus or () if not 0 <= gpu < count]
    if unknown:
        raise LookupError(f"gpus: {unknown}: the driver counts {count} GPUs, from 0")
    return tuple(range(count)) if gpus is None else tuple(gpus)


def _choose(sensors: list[Sensor]) -> tuple[list[Chosen], list[Gap]]:
    """Each curve goes to the first sensor, in the order given, that does not refuse it for good."""
    if any(sensor.card.name == "nvml.gpm" for sensor in sensors):
        time.sleep(gpm.PERIOD * 1.1)
    taken: set[tuple[str, int, str]] = set()
    refusals: dict[tuple[str, int, str], tuple[Sensor, Validity]] = {}
    chosen = []
    for sensor in sensors:
        card = sensor.card
        found = dict(zip(card.curves, sensor.read(), strict=False))
        mine = [curve for curve in card.curves if (card.table, card.key, curve) not in taken]
        kept = [curve for curve in mine if curve not in found or found[curve][1] not in _FINAL]
        refusals.update({(card.table, card.key, curve): (sensor, found[curve][1]) for curve in set(mine) - set(kept)})
        if kept:
            chosen.append(Chosen(sensor, tuple(kept)))
            taken.update((card.table, card.key, curve) for curve in kept)
        else:
            sensor.close()
    return chosen, [_refusal(place, sensor, validity) for place, (sensor, validity) in refusals.items() if place not in taken]


def _refusal(place: tuple[str, int, str], sensor: Sensor, validity: Validity) -> Gap:
    _, key, curve = place
    remedy = "run as a user whom the driver permits, such as root" if validity is Validity.NO_PERMISSION else ""
    return Gap(sensor.card.table, key, (curve,), validity, f"{sensor.card.source}: {REASONS[validity]}", remedy)


def _absent(chosen: list[Chosen], gaps: list[Gap], gpus: tuple[int, ...]) -> list[Gap]:
    """Curves that nobody spoke of."""
    told = {(each.sensor.card.table, each.sensor.card.key, curve) for each in chosen for curve in each.curves}
    told |= {(gap.table, key, curve) for gap in gaps for curve in gap.curves for key in ((gap.key,) if gap.key is not None else (*gpus, 0))}
    wanted: list[tuple[Any, int, str]] = [("gpu", gpu, curve) for gpu in gpus for curve in columns.GPU]
    wanted += [("host", 0, curve) for curve in columns.HOST]
    return [
        Gap(table, key, (curve,), Validity.ABSENT, REASONS[Validity.ABSENT], "") for table, key, curve in wanted if (table, key, curve) not in told
    ]
