"""Which of the study's jobs can be measured on this machine, and why the others are predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from membound import units
from membound.errors import MemboundError
from membound.run.schema import Run, Value
from membound.spec import fields
from membound.spec.machine import Machine
from membound.study.hbm_fine_tuning.here import Here, missing_packages
from membound.study.hbm_fine_tuning.lasting import expected, how_long
from membound.study.hbm_fine_tuning.plan import OF_REPORT, Plan, Point

HERE: Final = "here"
"""Last part of the names of points that are a job of the study on this machine as it is."""
SAME_CLOCK: Final = 0.01
"""Clocks that differ by less are one: drivers print whole MHz, and 2619 is 2618 on some."""
_MEMORY: Final = "memory"


@dataclass(frozen=True)
class Choice:
    """What becomes of one point, and why."""

    point: Point
    measured: bool
    why: str


def with_own(plan: Plan, here: Here) -> Plan:
    """`plan` with each of its jobs on this machine as it is, where that is another machine than the plan's, or has fewer GPUs."""
    first: dict[str, Point] = {}
    for point in plan.points.values():
        if point.family not in {_MEMORY, OF_REPORT}:
            first.setdefault(point.job_name, point)
    own = {made.name: made for point in first.values() if (made := _own(point, here)) is not None}
    return dataclasses.replace(plan, points={**plan.points, **own})


def _own(point: Point, here: Here) -> Point | None:
    gpus = min(point.job.gpus, len(here.gpus))
    machine = here.spec(gpus)
    if machine is None or (gpus == point.job.gpus and _is_this_kind(point.machine, machine)):
        return None
    try:
        job = fields.with_values(point.job, {"gpus": gpus, "machine": here.machine})
    except MemboundError:
        return None
    return Point(f"{point.job_name}.{HERE}", point.job_name, f"{point.title}, {gpus} x {machine.gpu.name}", HERE, job, machine)


def choose(plan: Plan, here: Here, predicted: Mapping[str, Run], steps: int | None = None) -> list[Choice]:
    """What becomes of every point, where measuring is of so many `steps`, or of as many as it takes.

    `predicted` are Runs that are known already: those of points that are not among them are taken to fit.
    """
    return [_choice(point, here, predicted.get(name), steps) for name, point in plan.points.items()]


def _choice(point: Point, here: Here, run: Run | None, steps: int | None) -> Choice:
    why = obstacle(point, here) or (_unfit(run, here) if run is not None else None)
    if why is not None:
        return Choice(point, False, why)
    return Choice(point, True, "to be measured if it is predicted to fit" if run is None else _expected(point, run, steps))


def _expected(point: Point, run: Run, steps: int | None) -> str:
    seconds = run.number("step.time")
    if (time := expected(point.job, seconds, steps)) is None:
        return "predicted to fit"
    return f"predicted to fit; {how_long(point.job, seconds, steps)} steps to take {units.show(time, 's')} after loading"


def obstacle(point: Point, here: Here) -> str | None:
    """Why `point` cannot be measured here, whatever its memory needs; None where nothing is in the way."""
    return next((why for check in _CHECKS if (why := check(point, here)) is not None), None)


def _too_many(point: Point, here: Here) -> str | None:
    there = len(here.gpus)
    return f"needs {point.job.gpus} GPUs, this machine has {there}" if point.job.gpus > there else None


def _other_gpu(point: Point, here: Here) -> str | None:
    machine = here.spec(point.job.gpus)
    if machine is None:
        return f"this machine ({here.gpus[0]}) is in no catalogue: say with --machine which entry it is"
    if machine.gpu.name != point.machine.gpu.name:
        return f"is of {point.machine.gpu.name}, this machine has {machine.gpu.name}"
    return None if _is_this_kind(point.machine, machine) else f"is of another HBM: {units.show(point.machine.gpu.hbm.capacity, 'B')}"


def _other_host(point: Point, here: Here) -> str | None:
    if not of_modules(point):
        return None
    wanted = point.machine.host.dimms
    if here.modules is None:
        return "is of a set of host memory modules, and which are here the firmware does not tell"
    same = len(here.modules) == wanted.count and all(abs(each / wanted.capacity - 1) < SAME_CLOCK for each in here.modules)
    return None if same else f"is of {wanted.count} x {units.show(wanted.capacity, 'B')} of host memory, this machine has others"


def _lacks(point: Point, here: Here) -> str | None:
    lacking = missing_packages(point.job)
    return f"needs {', '.join(lacking)}, not installed" if lacking else None


def _other_clock(point: Point, here: Here) -> str | None:
    wanted = point.machine.gpu.hbm.clock
    if here.clock is None or same_clock(wanted, here.clock):
        return None
    return f"is at {wanted / 1e6:.0f} MHz, memory runs at {here.clock / 1e6:.0f} MHz here, and a study switches no clock"


_CHECKS: Final[tuple[Callable[[Point, Here], str | None], ...]] = (_too_many, _other_gpu, _other_host, _other_clock, _lacks)


def _unfit(run: Run, here: Here) -> str | None:
    if not (run.fits.gpu and run.fits.host):
        return f"predicted not to fit: {run.fits.why}"
    needed = run.values.get("host.memory.used.peak")
    if isinstance(needed, Value) and needed.high > here.host_memory:
        return f"may need {units.show(needed.high, 'B')} of host memory, this machine has {units.show(here.host_memory, 'B')}"
    return None


def same_clock(first: float, second: float) -> bool:
    """Whether two clocks, Hz, are one."""
    return abs(first / second - 1) < SAME_CLOCK


def of_modules(point: Point) -> bool:
    """Whether `point` is about which modules the host has."""
    return "dimm-" in point.name


def _is_this_kind(wanted: Machine, machine: Machine) -> bool:
    """Whether the two have one kind of GPU, at whatever memory clock."""
    theirs = wanted.gpu.hbm.model_copy(update={"clock": machine.gpu.hbm.clock})
    return wanted.gpu.name == machine.gpu.name and theirs == machine.gpu.hbm
