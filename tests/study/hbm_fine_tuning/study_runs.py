"""Runs for every point of the report's study, made by hand: no capture, and gains that a test can check."""

from __future__ import annotations

from dataclasses import replace

from membound.run.quantities import QUANTITIES
from membound.run.schema import Fits, Run, Value
from membound.study.hbm_fine_tuning.book import Book
from membound.study.hbm_fine_tuning.plan import Plan, Point, plan
from membound.study.hbm_fine_tuning.runner import Ran
from tests.report.page.conftest import make_run

GAIN = 0.14
"""Gain in every rate from 1593 to 2619 MHz; it is straight in the clock."""
_USUAL = {"1": 0.5, "degC": 55.0, "B": 40e9, "W": 500.0, "parameter": 6.7e9}


def speed(clock: float) -> float:
    """Rates over those at 1593 MHz."""
    return 1 + GAIN * (clock - 1593e6) / (2619e6 - 1593e6)


def stand_in(point: Point) -> Run:
    """A Run of `point`: all quantities have a value, rates go with the memory clock, and 1.5 TB of host memory hold no 65B."""
    clock = point.machine.gpu.hbm.clock
    numbers = {name: _USUAL.get(each.unit, 2.0) for name, each in QUANTITIES.items()}
    numbers |= {name: 1000.0 * speed(clock) for name in ("tokens.rate", "tokens.rate.useful", "samples.rate")}
    numbers |= {
        "step.time": 10.0 / speed(clock),
        "host.memory.capacity": point.machine.host.capacity,
        "gpu.memory.capacity": point.machine.gpu.hbm.capacity,
    }
    values = {name: Value(number, QUANTITIES[name].unit, number * 0.95, number * 1.05, "made by hand") for name, number in numbers.items()}
    holds = not (point.job.model == "llama-65b" and point.machine.host.capacity < 2e12 and point.job.recipe.offload.optimizer == "cpu")
    fits = Fits(True, holds, None if holds else "the host has 1.5 TiB")
    made = make_run(gpus=1, seconds=4, clock=clock, origin="predicted", fits=fits, values=values)
    documents = {"job": point.job.model_dump(mode="json"), "machine": point.machine.model_dump(mode="json")}
    return replace(made, **documents, about={"sensitivity": {"hbm": 0.6, "compute": 0.4}, "title": point.title})  # type: ignore[arg-type]


def book(without: frozenset[str] = frozenset(), reason: str = "") -> Book:
    """The study with all of its Runs but those of the jobs `without`, which failed for `reason`."""
    whole: Plan = plan()
    runs = {name: stand_in(point) for name, point in whole.points.items() if point.job_name not in without}
    return Book.of(whole, Ran(runs, {name: reason for name in whole.points if name not in runs}, len(runs)))
