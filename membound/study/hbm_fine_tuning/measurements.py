"""The study's measured Runs, in the folder of the others: each job on this machine's GPUs, one after the other, none twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from membound import sources
from membound.errors import MeasureError, MemboundError, RecordError, StorageError
from membound.measure import door, warm_up
from membound.measure.place import Place
from membound.measure.plan import Options
from membound.run import store
from membound.run.schema import Run
from membound.spec.job import Job
from membound.study.hbm_fine_tuning.choosing import same_clock
from membound.study.hbm_fine_tuning.here import Here
from membound.study.hbm_fine_tuning.lasting import how_long
from membound.study.hbm_fine_tuning.plan import Point

SUFFIX: Final = ".measured"
"""End of the folder's name of a measured Run; in front of it the point's."""
_MARK: Final = "fingerprint"
# What the measured job runs, and how it is measured: a change of these makes what was measured before another thing.
_SOURCES: Final = ("programs", "measure", "spec/job.py", "spec/data/lengths")
# `membound.measure.outcome.Outcome.answered`: out of memory is an answer, a failure is none.
_ANSWERED: Final = frozenset({"done", "gpu-memory", "host-memory"})


@dataclass
class Measured:
    """What was measured, and why the rest was not."""

    runs: dict[str, Run] = field(default_factory=dict)
    """By name of the point."""
    failed: dict[str, str] = field(default_factory=dict)
    made: int = 0
    """How many were measured now, rather than found."""
    stopped: int | None = None
    """The signal that ended it."""


@dataclass(frozen=True)
class Measurements:
    """The folder `runs` of a study, and how to measure into it."""

    folder: Path
    here: Here
    options: Options = field(default_factory=Options)
    steps: int | None = None
    """Optimizer steps of each job, warm-up included, where the user says how many; None: `how_long`'s."""
    machine: str | None = None
    """The catalogue's name of this machine, where the user gave it."""

    def read(self, point: Point) -> Run | None:
        """The measured Run of `point`, or None: not there, cut off, failed, or of another job, code or machine."""
        place = self._place(point)
        if place.unfinished():
            return None
        try:
            run = store.read(place.folder)
        except RecordError:
            return None
        whole = run.about.get(_MARK) == self._fingerprint(point) and run.about.get("ended", {}).get("how") in _ANSWERED
        return run if whole else None

    def measure(self, point: Point, seconds: float | None = None) -> Run:
        """Measure `point` now, whose step is predicted to take so many `seconds`; its Run as it is kept.

        Raises as `membound.measure`, and `MeasureError` where the clock was another one.
        """
        place = self._place(point)
        if place.unfinished():
            # Cut off by a kill: put together, it is a Run that the next one replaces.
            door.recover(place.folder)
        run = door.measure(point.job, place.folder, self._lasting(point.job, seconds), self.machine, source=self.here.source)
        if run.about["ended"]["how"] not in _ANSWERED:
            return run
        self._check_clock(point, run)
        noted = dataclasses.replace(run, about={**run.about, _MARK: self._fingerprint(point), "title": point.title})
        store.write(noted, place.folder)
        return noted

    def _lasting(self, job: Job, seconds: float | None) -> Options:
        before = self.options.warm_up if self.steps is not None else warm_up.steps(job)
        return dataclasses.replace(self.options, steps=how_long(job, seconds, self.steps), warm_up=before)

    def _place(self, point: Point) -> Place:
        return Place(self.folder / f"{point.name}{SUFFIX}")

    def _check_clock(self, point: Point, run: Run) -> None:
        seen, wanted = memory_clock(run), point.machine.gpu.hbm.clock
        if seen is not None and not same_clock(seen, wanted):
            place = self._place(point).folder
            told = f"memory ran at {seen / 1e6:.0f} MHz, not at the {wanted / 1e6:.0f} MHz that this run is to tell of"
            raise MeasureError(f"{told} (it is in {place})")

    def _fingerprint(self, point: Point) -> str:
        job = point.job.model_dump(mode="json")
        parts = [job, point.machine.gpu.hbm.clock, self.here.gpus, self.steps, self.options.weights, sources.digest(*_SOURCES)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def first_counted(run: Run) -> float | None:
    """When the first step that counts began, s; the first of all where none counts; None where no step was marked."""
    marks = run.tables.get("marks")
    if marks is None:
        return None
    steps = [row for row in marks.to_pylist() if row["kind"] == "step" and row["end"] is not None]
    options = run.about.get("options", {})
    begin = min(int(options.get("warm_up", 0)), max(int(options.get("steps", 1)) - 1, 0))
    late = [row["start"] for row in steps if row["step"] >= begin]
    return min(late or [row["start"] for row in steps], default=None)


def memory_clock(run: Run) -> float | None:
    """The memory clock of `run` in its counted steps, Hz: the median of what was read; None where nothing was."""
    gpu, begin = run.tables.get("gpu"), first_counted(run)
    if gpu is None or begin is None or "clock.memory" not in gpu.column_names:
        return None
    clock = np.asarray(gpu.column("clock.memory").to_numpy(), dtype=float)[gpu.column("time").to_numpy() >= begin]
    clock = clock[np.isfinite(clock)]
    return float(np.median(clock)) if clock.size else None


def measure_all(
    points: Iterable[Point],
    measurements: Measurements,
    heard: Callable[[str], None] = lambda what: None,
    others: Iterable[Point] = (),
    seconds: Mapping[str, float | None] = MappingProxyType({}),
) -> Measured:
    """Every point of `points`, one after the other; those of one job on one machine once. One that fails does not stop the others, a signal does.

    `seconds`: by name what a step is predicted to take. Of `others` what was measured before is taken, such as at another memory clock. Raises
    `StorageError` where the disk refuses.
    """
    found = Measured({point.name: run for point in others if (run := measurements.read(point)) is not None})
    groups = alike(points)
    for number, group in enumerate(groups, 1):
        run = measurements.read(group[0])
        if run is None:
            heard(f"measuring {number} of {len(groups)}: {group[0].title}")
            run = _now(group, measurements, found, heard, seconds.get(group[0].name))
        if run is not None:
            found.runs.update({each.name: run for each in group})
        if found.stopped is not None:
            break
    return found


def _now(group: list[Point], measurements: Measurements, found: Measured, heard: Callable[[str], None], seconds: float | None) -> Run | None:
    """The Run of a group of points, measured now; None where `found` says why there is none."""
    try:
        run = measurements.measure(group[0], seconds)
        ended = run.about["ended"]
        failure = None if ended["how"] in _ANSWERED else str(ended["said"])
    except StorageError:
        # A disk that refuses refuses the others as well.
        raise
    except MemboundError as error:
        failure, ended = str(error), {"how": "failed"}
    if failure is None:
        found.made += 1
        return run
    found.failed.update({each.name: failure for each in group})
    found.stopped = int(ended["asked"]) if ended["how"] == "stopped" else None
    heard(f"failed: {group[0].title}: {failure}")
    return None


def alike(points: Iterable[Point]) -> list[list[Point]]:
    """Points of one Job on one machine together, in the order of the first of each."""
    grouped: dict[str, list[Point]] = {}
    for point in points:
        content = json.dumps([point.job.model_dump(mode="json"), point.machine.model_dump(mode="json")], sort_keys=True)
        grouped.setdefault(content, []).append(point)
    return list(grouped.values())
