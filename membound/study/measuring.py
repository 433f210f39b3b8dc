"""Measuring as a study does it: the door that everybody uses, and what the sampler itself costs the job."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np

from membound.errors import InputError, MeasureError
from membound.measure.door import load, measure, measure_command, recover
from membound.measure.plan import Options
from membound.run import store
from membound.run.schema import Run
from membound.spec.job import Job

__all__ = ["REPEATS", "load", "measure", "measure_command", "measure_overhead", "recover"]

REPEATS: Final = 3
"""Pairs of runs, with and without the sampler."""


def measure_overhead(job: Job, out: Path, options: Options, machine: str | None = None, repeats: int = REPEATS) -> Run:
    """Run `job` `repeats` times with the sampler and as often without, in turns; the last Run with it, whose `about.overhead` says the ratio.

    The ratio is that of the medians of all counted steps, less one, with the spread of the medians of the single runs. Raises as `measure`.
    """
    if repeats < 1:
        raise InputError("repeats", repeats, "write 1 or more")
    sampled, bare = dataclasses.replace(options, sampled=True), dataclasses.replace(options, sampled=False)
    times: dict[bool, list[float]] = {True: [], False: []}
    run: Run | None = None
    with tempfile.TemporaryDirectory(prefix="membound-overhead-") as scratch:
        for turn in range(repeats):
            times[False].append(_step_time(measure(job, Path(scratch) / f"bare-{turn}", bare, machine)))
            run = measure(job, out, sampled, machine)
            times[True].append(_step_time(run))
    assert run is not None
    noted = dataclasses.replace(run, about={**run.about, "overhead": _overhead(times[True], times[False])})
    store.write(noted, out)
    return noted


def _step_time(run: Run) -> float:
    time = run.number("step.time")
    if time is None:
        raise MeasureError(f"the sampler's cost cannot be told: {run.about['ended']['said']}")
    return time


def _overhead(sampled: list[float], bare: list[float]) -> dict[str, Any]:
    """Medians of each kind, their ratio less one, and how far the undisturbed runs lie apart: less than that is noise."""
    ratio = float(np.median(sampled) / np.median(bare))
    noise = (max(bare) - min(bare)) / float(np.median(bare))
    return {"step_time_sampled_s": sampled, "step_time_bare_s": bare, "share": ratio - 1.0, "spread_of_bare": noise}
