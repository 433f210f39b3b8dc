"""A predicted sweep: one capture per Job, and that Job's step on every machine of the grid.

grid = whole(job, {"machine.gpu.hbm.clock": ["1593 MHz", "2619 MHz"], "recipe.micro_batch": [1, 2]})
found = sweep(grid, Predictor())
found.points[0].priced.bound, found.points[0].priced.sensitivity
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from membound.errors import CaptureError, InputError, MemboundError, MissingPackageError
from membound.ghost.servers import preloaded
from membound.replay.memory import replay
from membound.replay.pace import Pace, at_once, deferring
from membound.replay.predict_memory import memory_fits, memory_values
from membound.replay.time import Replayer, pace
from membound.replay.walked import Forgetful
from membound.run.schema import Fits, Missing, Value
from membound.spec.job import Job
from membound.spec.jobfile import Asked
from membound.spec.machine import Machine
from membound.study.predicting import Predictor
from membound.study.sweep import workers
from membound.study.sweep.grid import Axis, Grid, whole
from membound.study.sweep.values import Priced
from membound.trace import cache
from membound.trace.array_cache import ArrayCache

MEMORY: Final = ("gpu.memory.used.peak", "gpu.memory.capacity", "host.memory.used.peak", "host.memory.capacity")
"""Quantities of a point's memory."""

# What makes a point impossible, and leaves the others possible.
_REFUSALS: Final = (InputError, CaptureError, MissingPackageError)
_AT_ONCE: Final = 2
"""Captures at one time: each takes a processor and up to some gigabytes."""


@dataclass(frozen=True)
class Point:
    """One combination of values. `refused` says why there is nothing else; a point that does not fit is priced all the same."""

    at: Mapping[str, object]
    refused: str | None = None
    fits: Fits | None = None
    memory: Mapping[str, Value | Missing] | None = None
    """By quantity name, `MEMORY`."""
    priced: Priced | None = None
    gain: float | None = None
    """Tokens per second and GPU, padding left out, over those of the first point that is priced, less 1."""


@dataclass(frozen=True)
class Sweep:
    """What a grid came to; `job` and `machine` are those of the first point that can be asked."""

    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    job: Mapping[str, Any]
    machine: Mapping[str, Any]


Heard = Callable[[str, int, int], None]
"""Told of what, how many are done, and of how many."""


def sweep(grid: Grid, predictor: Predictor | None = None, heard: Heard = lambda what, done, of: None, processes: int | None = None) -> Sweep:
    """The points of a checked `grid`, in its order. Raises `MemboundError` where not one of them can be asked."""
    predictor = predictor or Predictor()
    places = list(grid.points())
    asked = [_asked(grid, place) for place in places]
    groups: dict[tuple[str, int], list[int]] = {}
    for number, each in enumerate(asked):
        if isinstance(each, Asked):
            groups.setdefault((each.job.model_dump_json(exclude={"machine"}), each.machine.gpus), []).append(number)
    found = [Point(place, refused=each if isinstance(each, str) else None) for place, each in zip(places, asked, strict=True)]
    failed = _capture([_one(asked, numbers[0]) for numbers in groups.values()], predictor, heard)
    done = 0
    for number, numbers in enumerate(groups.values()):
        some = [_one(asked, each) for each in numbers]
        points = [Point(places[each], failed[number]) for each in numbers] if number in failed else None
        count = _Count(heard, done, sum(map(len, groups.values())))
        for at, point in zip(numbers, points or _points(some, [places[each] for each in numbers], predictor, count, processes), strict=True):
            found[at] = point
        done += len(numbers)
    return _judged(grid, found, asked)


def predicted(job: Job, over: Mapping[str, Sequence[object]], machine: str | None = None, changes: Mapping[str, object] | None = None) -> Sweep:
    """The sweep of `job` over fields with their values; `machine` is a catalogue name, `changes` fields of it (dotted) that are the same throughout.

    Raises `InputError` for a field that does not exist, a value of another unit, an empty list or too many points.
    """
    return sweep(whole(job, over, machine, changes))


class _Count:
    """Tells how many points are done; several threads may add to it."""

    def __init__(self, heard: Heard, done: int, of: int) -> None:
        self._heard, self._done, self._of, self._lock = heard, done, of, threading.Lock()

    def __call__(self, more: int) -> None:
        with self._lock:
            self._done += more
            self._heard("pricing", self._done, self._of)


def _asked(grid: Grid, place: Mapping[str, object]) -> Asked | str:
    try:
        return grid.asked(place)
    except InputError as error:
        return str(error)


def _one(asked: Sequence[Asked | str], number: int) -> Asked:
    each = asked[number]
    assert isinstance(each, Asked)
    return each


def _capture(jobs: Sequence[Asked], predictor: Predictor, heard: Heard) -> dict[int, str]:
    """Have the Traces of `jobs` kept, two at a time; why those that fail do. Where none are kept, or a Job takes two captures, later, one by one."""
    ahead = [number for number, each in enumerate(jobs) if predictor.cached and not each.job.data.padded]
    failed: dict[int, str] = {}

    def one(number: int, forking: Predictor) -> None:
        try:
            forking.trace(jobs[number].job, jobs[number].machine.gpus)
        except _REFUSALS as error:
            failed[number] = str(error)

    if len(ahead) > 1:
        with preloaded() as start, ThreadPoolExecutor(_AT_ONCE) as pool:
            forking = dataclasses.replace(predictor, start=start)
            for done, _ in enumerate(pool.map(functools.partial(one, forking=forking), ahead), 1):
                heard("capturing", done, len(ahead))
    return failed


def _points(some: Sequence[Asked], places: Sequence[Mapping[str, object]], predictor: Predictor, count: _Count, processes: int | None) -> list[Point]:
    """The points of one Job."""
    machines = [each.machine for each in some]
    try:
        replayer = predictor.replayer(some[0].job, machines[0].gpus)
    except _REFUSALS as error:
        return [Point(place, str(error)) for place in places]
    memories = _Memories(replayer, predictor)
    found = []
    for place, machine, priced in zip(places, machines, workers.price(replayer, machines, count, processes), strict=True):
        if isinstance(priced, str):
            found.append(Point(place, priced))
        else:
            fits, values = memories.on(machine)
            found.append(Point(place, None, fits, values, priced))
    return found


_Answer = tuple[Fits, dict[str, Value | Missing]]


class _Memories:
    """The memory of one Trace on many machines, replayed once for all that are alike in what memory depends on.

    Where streams share memory, it may also depend on how far the host is ahead of them: each machine has its own then, unless it comes to the same
    with the host a whole queue of launches ahead and not ahead at all.
    """

    def __init__(self, replayer: Replayer, predictor: Predictor) -> None:
        self._replayer, self._trace, self._settings = replayer, replayer.trace, predictor.settings
        self._deferring = deferring(self._trace)
        self._memo = ArrayCache(cache.default_folder()) if predictor.cached else Forgetful()
        self._known: dict[tuple[object, ...], _Answer] = {}
        # Of machines that are alike: their answer, if it is the same however far the host is ahead.
        self._whatever: dict[tuple[object, ...], _Answer | None] = {}

    def on(self, machine: Machine) -> _Answer:
        """The verdict, and the values of `MEMORY`."""
        alike = memory_key(machine)
        if not self._deferring:
            return self._kept(alike, lambda: self._replayed(machine, None))
        if alike not in self._whatever:
            far, close = (self._replayed(machine, ahead) for ahead in (None, at_once(self._replayer.program)))
            self._whatever[alike] = far if far == close else None
        same = self._whatever[alike]
        return (
            self._kept((machine.model_dump_json(),), lambda: self._replayed(machine, pace(self._replayer.on(machine), self._replayer.trace)))
            if same is None
            else same
        )

    def _kept(self, key: tuple[object, ...], ask: Callable[[], _Answer]) -> _Answer:
        if key not in self._known:
            self._known[key] = ask()
        return self._known[key]

    def _replayed(self, machine: Machine, ahead: Pace | None) -> _Answer:
        memory = replay(self._replayer.scripts, machine, self._settings, self._memo, ahead)
        values = memory_values(memory, self._trace, machine)
        return memory_fits(memory), {name: values[name] for name in MEMORY}


def memory_key(machine: Machine) -> tuple[object, ...]:
    """What memory depends on where streams share none: two machines that share it hold a Job alike, and say so in the same words."""
    gpu, host = machine.gpu, machine.host
    return (
        machine.name, machine.gpus, machine.nodes, gpu.architecture, gpu.hbm.capacity, gpu.hbm.source, machine.links.nvlink is None,
        host.capacity, host.source,
    )  # fmt: skip


def _judged(grid: Grid, points: Sequence[Point], asked: Sequence[Asked | str]) -> Sweep:
    first = next((point.priced for point in points if point.priced is not None), None)
    if first is None:
        raise MemboundError(f"no point of this sweep can be asked; the first: {points[0].refused}")
    base = next(each for each in asked if isinstance(each, Asked))
    judged = tuple(_with_gain(point, first) for point in points)
    return Sweep(grid.axes, judged, base.job.model_dump(mode="json"), base.machine.model_dump(mode="json"))


def _with_gain(point: Point, first: Priced) -> Point:
    if point.priced is None:
        return point
    ours, theirs = (each.values["tokens.rate.useful"] for each in (point.priced, first))
    assert isinstance(ours, Value)
    assert isinstance(theirs, Value)
    return Point(point.at, None, point.fits, point.memory, point.priced, ours.value / theirs.value - 1.0)
