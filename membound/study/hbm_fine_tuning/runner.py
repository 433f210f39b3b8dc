"""Makes the study's Runs: captures two at a time, each Job then priced on all its machines; what is kept is taken, what fails is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from membound.errors import MemboundError
from membound.ghost import row_lengths
from membound.replay.lengths import of as of_job
from membound.replay.time import Replayer
from membound.run.schema import Run
from membound.spec.job import Job
from membound.study.hbm_fine_tuning.kept import Kept
from membound.study.hbm_fine_tuning.plan import Plan, Point
from membound.study.predicting import Predictor

_AT_ONCE: Final = 2
"""Captures at one time: each takes a processor."""


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
    ran = Ran(dict(found), {}, len(plan.points) - len(found))
    groups = _groups([point for name, point in plan.points.items() if name not in found])
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        maker = _Maker(predictor or Predictor(), kept, ran, heard)
        try:
            for number, (points, failure) in enumerate(_captured(groups, maker, pool), 1):
                heard(f"{number} of {len(groups)} jobs: {points[0].title}")
                maker.make(points, failure)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    order = [name for name in plan.points if name in ran.runs]
    return Ran({name: ran.runs[name] for name in order}, ran.failed, ran.made)


def _groups(points: Sequence[Point]) -> list[list[Point]]:
    """Points of one Job together: one capture serves them all."""
    grouped: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        grouped.setdefault((point.job.model_dump_json(), point.machine.gpus), []).append(point)
    return list(grouped.values())


def _captured(groups: Sequence[list[Point]], maker: _Maker, pool: ThreadPoolExecutor) -> Iterator[tuple[list[Point], str | None]]:
    """Each group once its captures are kept, in the order in which they get there; or why they are not."""
    waiting: dict[int, set[Future[None]]] = {}
    owner: dict[Future[None], int] = {}
    ready: list[int] = []
    failures: dict[int, str] = {}
    for number, points in enumerate(groups):
        try:
            jobs = captures(points[0].job)
        except MemboundError as error:
            failures[number], jobs = str(error), []
        futures = {pool.submit(maker.capture, job, points[0].machine.gpus) for job in jobs}
        waiting[number] = futures
        owner |= dict.fromkeys(futures, number)
        if not futures:
            ready.append(number)
    for number in ready:
        yield groups[number], failures.get(number)
    for future in as_completed(owner):
        number = owner[future]
        waiting[number].discard(future)
        met = future.exception()
        if isinstance(met, MemboundError):
            failures.setdefault(number, str(met))
        elif met is not None:
            raise met
        if not waiting[number]:
            yield groups[number], failures.get(number)


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
    ran: Ran
    heard: Callable[[str], None]

    def capture(self, job: Job, ranks_per_node: int) -> None:
        """Have the Trace of `job` kept."""
        self.predictor.trace(job, ranks_per_node)

    def make(self, points: Sequence[Point], failure: str | None) -> None:
        """The Runs of points of one Job, or why there are none."""
        if failure is None:
            try:
                replayer = self.predictor.replayer(points[0].job, points[0].machine.gpus)
            except MemboundError as error:
                failure = str(error)
        if failure is not None:
            self.ran.failed.update({point.name: failure for point in points})
            self.heard(f"failed: {points[0].title}: {failure}")
            return
        for point in points:
            self._price(point, replayer)

    def _price(self, point: Point, replayer: Replayer) -> None:
        try:
            made = self.predictor.priced(replayer, point.job, point.machine).run
        except MemboundError as error:
            self.ran.failed[point.name] = str(error)
            self.heard(f"failed: {point.name}: {error}")
            return
        self.ran.runs[point.name] = self.kept.write(point, made)
