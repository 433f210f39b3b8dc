"""Makes the study's Runs: captures side by side, each Job then priced on all its machines; what is kept is taken, what fails is told."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from membound import processors
from membound.errors import InputError, MemboundError
from membound.ghost import row_lengths
from membound.ghost.servers import preloaded
from membound.replay.lengths import of as of_job
from membound.replay.side_by_side import on_each
from membound.replay.step import Played
from membound.replay.time import Replayer
from membound.run.schema import Run
from membound.spec.job import Job
from membound.study.hbm_fine_tuning.errands import Stopping, errands
from membound.study.hbm_fine_tuning.kept import Kept
from membound.study.hbm_fine_tuning.plan import Plan, Point
from membound.study.predicting import Predictor

_NEEDED: Final = 4 * 2**30
"""What a capture may take of this computer's memory, B: the large ones take about half of it."""


@dataclass(frozen=True)
class Ran:
    """What the study has: Runs by name of their point, and why the others have none."""

    runs: dict[str, Run]
    failed: dict[str, str]
    made: int
    """How many were made now, rather than found."""


def run(plan: Plan, folder: Path, predictor: Predictor | None = None, heard: Callable[[str], None] = lambda what: None) -> Ran:
    """Every point of `plan`; its Runs lie in `folder`/runs afterwards, so that the next call goes on from there.

    One Job that fails does not stop the others. Raises `StorageError` where the disk refuses.
    """
    kept = Kept(folder / "runs")
    found = {name: run for name, point in plan.points.items() if (run := kept.read(point)) is not None}
    heard(f"{len(found)} of {len(plan.points)} runs are there")
    groups = _groups([point for name, point in plan.points.items() if name not in found])
    with preloaded() as start:
        stopping = Stopping()
        quiet = dataclasses.replace(predictor or Predictor(), progress=lambda progress: stopping.check(), start=start)
        maker = _Maker(quiet, kept, dict(found), {}, heard)
        _make(groups, maker, stopping)
    runs = {name: maker.runs[name] for name in plan.points if name in maker.runs}
    return Ran(runs, maker.failed, len(runs) - len(found))


def _make(groups: Sequence[list[Point]], maker: _Maker, stopping: Stopping) -> None:
    """The Runs of `groups`, each as soon as its captures are there."""
    jobs = [_jobs(points) for points in groups]
    owners = [number for number, some in enumerate(jobs) for _ in some]
    left = Counter(owners)
    with errands([functools.partial(maker.capture, *each) for some in jobs for each in some], _at_once(), stopping) as ended:
        done = 0
        for errand, met in ended:
            number = owners[errand]
            left[number] -= 1
            maker.met(number, met)
            if not left[number]:
                done += 1
                maker.heard(f"{done} of {len(groups)} jobs: {groups[number][0].title}")
                maker.make(groups[number], maker.failures.get(number))


def _groups(points: Sequence[Point]) -> list[list[Point]]:
    """Points of one Job together: one capture serves them all."""
    grouped: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        grouped.setdefault((point.job.model_dump_json(), point.machine.gpus), []).append(point)
    return list(grouped.values())


def _jobs(points: Sequence[Point]) -> list[tuple[Job, int]]:
    """What to capture for points of one Job, with the ranks of a node."""
    return [(job, points[0].machine.gpus) for job in captures(points[0].job)]


def _at_once() -> int:
    """Captures at one time: each takes a processor, and memory."""
    return max(1, min(processors.usable(), int(psutil.virtual_memory().available / _NEEDED)))


def captures(job: Job) -> list[Job]:
    """What has to be captured for `job`: itself, and once more at another length where its rows differ."""
    shorter = of_job(job, row_lengths.of(job)).second_capture()
    if shorter is None:
        return [job]
    return [job, job.model_copy(update={"data": job.data.model_copy(update={"max_length": shorter})})]


@dataclass(frozen=True)
class _Maker:
    """Makes Runs of points."""

    predictor: Predictor
    kept: Kept
    runs: dict[str, Run]
    failed: dict[str, str]
    heard: Callable[[str], None]
    failures: dict[int, str] = field(default_factory=dict)
    """Why a group of points has no capture."""

    def capture(self, job: Job, ranks_per_node: int) -> None:
        """Have the Trace of `job` kept."""
        self.predictor.trace(job, ranks_per_node)

    def met(self, number: int, what: Exception | None) -> None:
        """What a capture for group `number` met. Raises what is no result about its Job."""
        if isinstance(what, MemboundError):
            self.failures.setdefault(number, str(what))
        elif what is not None:
            raise what

    def make(self, points: Sequence[Point], failure: str | None) -> None:
        """The Runs of points of one Job, or why there are none."""
        if failure is None:
            try:
                replayer = self.predictor.replayer(points[0].job, points[0].machine.gpus)
            except MemboundError as error:
                failure = str(error)
        if failure is not None:
            self.failed.update({point.name: failure for point in points})
            self.heard(f"failed: {points[0].title}: {failure}")
            return
        for point, played in zip(points, on_each(replayer, [point.machine for point in points]), strict=True):
            self._price(point, replayer, played)

    def _price(self, point: Point, replayer: Replayer, played: Played | InputError) -> None:
        try:
            if isinstance(played, InputError):
                raise played
            made = self.predictor.priced(replayer, point.job, point.machine, played).run
        except MemboundError as error:
            self.failed[point.name] = str(error)
            self.heard(f"failed: {point.name}: {error}")
            return
        self.runs[point.name] = self.kept.write(point, made)
