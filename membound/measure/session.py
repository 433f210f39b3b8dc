"""One measurement from its first file to its last: the sampler around it, the job or command within, how it ended written down."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Final, Literal

from membound.measure import here, kernel_kills, launch, marks, watch
from membound.measure.place import Place, write_json
from membound.measure.plan import Plan
from membound.measure.recording import Recording
from membound.measure.signals import Held
from membound.measure.source import Source
from membound.measure.watch import Ended, Watch

Step = Mapping[str, Any]
_REAL: Final = Source()


def run(
    place: Place, plan: Plan, held: Held, on_step: Callable[[Step], None] = lambda step: None, quiet: bool = False, source: Source = _REAL
) -> Ended:
    """Run what `plan` says into `place`. Afterwards `assemble` makes the Run of it, as it would if this process were killed at any moment.

    `on_step` hears of each step that rank 0 has done. `quiet` sends a command's standard output to standard error. `source` is the machine
    that the sampler asks. Raises `InputError` for what cannot be started, `MeasureError` where the sampler cannot, `StorageError`.
    """
    place.make()
    write_json(place.plan, plan.document())
    before = kernel_kills.count()
    with _sampling(place, plan, source):
        ended = _job(place, plan, held, on_step) if plan.command is None else _command(place, plan, held, quiet)
        after = kernel_kills.count()
    write_json(place.ended, {**ended.document(), "kernel_kills": after, "kernel_kills_before": before})
    return ended


@contextmanager
def _sampling(place: Place, plan: Plan, source: Source) -> Iterator[None]:
    options = plan.options
    hbm: Literal["auto", "pm"] = "pm" if options.hbm == "pm" else "auto"
    period, gpus = options.period, _gpus(plan, source)
    sampler = Recording(place.samples, source, period, max(1.0, period), gpus, hbm) if options.sampled else nullcontext()
    with sampler:
        yield


def _gpus(plan: Plan, source: Source) -> list[int] | None:
    """Which GPUs to sample: a Job's own, since each costs the sampler its calls; all where a command may use any of them."""
    if plan.command is not None or plan.device != "cuda" or source != _REAL:
        return None
    return here.numbers(int(plan.job["gpus"]) // plan.options.nodes.count)


def _job(place: Place, plan: Plan, held: Held, on_step: Callable[[Step], None]) -> Ended:
    with place.log.open("ab") as log:
        job = Watch(
            launch.command(plan, place.folder),
            launch.environment(plan, os.environ),
            place.processes,
            input=subprocess.DEVNULL,
            output=log.fileno(),
            errors=log.fileno(),
            time_limit=plan.options.time_limit,
        )
        follower = _Follower(place, on_step)
        ended = job.run(held, follower.look)
        follower.look()
        return ended


def _command(place: Place, plan: Plan, held: Held, quiet: bool) -> Ended:
    job = Watch(
        plan.command or [],
        {**os.environ, marks.ENVIRONMENT: str(place.marks.absolute())},
        place.processes,
        output=2 if quiet else None,
        time_limit=plan.options.time_limit,
        own_terminal=watch.has_terminal(),
    )
    return job.run(held)


class _Follower:
    """Reads on in the marks of rank 0 as they grow."""

    def __init__(self, place: Place, on_step: Callable[[Step], None]) -> None:
        self._path = marks.file_of(place.marks, 0)
        self._on_step = on_step
        self._seen = 0

    def look(self) -> None:
        """Tell of the steps that were done since the last look."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._seen)
            whole, found, _ = file.read().rpartition(b"\n")
        if not found:
            return
        self._seen += len(whole) + 1
        for line in marks.parse(whole.decode()):
            if line["what"] == "step":
                self._on_step(line)
