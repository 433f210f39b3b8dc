"""The study for real: what this machine can run is measured after all has been predicted; the rest says why it is predicted only."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from membound.study.hbm_fine_tuning import choosing, runner
from membound.study.hbm_fine_tuning.book import Book
from membound.study.hbm_fine_tuning.choosing import Choice
from membound.study.hbm_fine_tuning.here import Here
from membound.study.hbm_fine_tuning.kept import Kept
from membound.study.hbm_fine_tuning.lasting import expected
from membound.study.hbm_fine_tuning.measurements import Measured, Measurements, measure_all
from membound.study.hbm_fine_tuning.plan import Plan
from membound.study.predicting import Predictor


def rehearse(plan: Plan, folder: Path, here: Here, steps: int | None = None) -> list[Choice]:
    """What `run` would do with each point, as far as it is known without predicting anything: nothing is run."""
    whole, kept = choosing.with_own(plan, here), Kept(folder / "runs")
    known = {name: run for name, point in whole.points.items() if (run := kept.read(point)) is not None}
    return choosing.choose(whole, here, known, steps)


def run(
    plan: Plan, folder: Path, measurements: Measurements, predictor: Predictor | None = None, heard: Callable[[str], None] = lambda what: None
) -> tuple[Book, Measured]:
    """Predict every point of `plan`, and of this machine's own; measure those that can be; the book of both. `Measured.stopped` says whether
    a signal ended it before all was measured. Raises `StorageError` where the disk refuses.
    """
    whole = choosing.with_own(plan, measurements.here)
    ran = runner.run(whole, folder, predictor, heard)
    choices = choosing.choose(whole, measurements.here, ran.runs, measurements.steps)
    wanted = [each.point for each in choices if each.measured and each.point.name in ran.runs]
    others = [each.point for each in choices if not each.measured]
    # The quickest first: whatever ends it early, most is done by then.
    seconds = {point.name: ran.runs[point.name].number("step.time") for point in wanted}
    wanted.sort(key=lambda point: expected(point.job, seconds[point.name], measurements.steps) or math.inf)
    heard(f"runs that can be measured on this machine: {len(wanted)}")
    done = measure_all(wanted, measurements, heard, others, seconds)
    return Book.of(whole, ran, done, {each.point.name: each.why for each in choices if not each.measured}), done
