"""The door of measuring: a Job or a command in, a Run out, its folder a readable Run from the first moment to the last."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from membound import __version__, packages
from membound.errors import InputError, MeasureError, RecordError
from membound.measure import here, session, signals
from membound.measure.assemble import assemble
from membound.measure.outcome import of
from membound.measure.place import Place
from membound.measure.plan import Options, Plan, now_ns, this_process
from membound.measure.session import Step
from membound.measure.source import Source
from membound.run import store
from membound.run.quantities import QUANTITIES
from membound.run.schema import Fits, Missing, Run
from membound.spec import catalogue, jobfile
from membound.spec.job import Job

Hear = Callable[[Step], None]


def measure(
    job: Job,
    out: Path | str | None = None,
    options: Options | None = None,
    machine: str | None = None,
    on_step: Hear = lambda step: None,
    source: Source | None = None,
) -> Run:
    """Run `job` for real on this machine and return what was measured; it is kept in the folder `out`, or in one named by the time.

    `machine` is the catalogue's name of this machine, where it is not recognised. Out of memory is a result: `fits` says so. Raises
    `InputError` for what cannot be asked, `MeasureError` where the training program fails, with the Run kept all the same.
    """
    plan = plan_of(job, options or Options(), machine)
    return finish(begin(plan, place_for(out, job.model)), plan, on_step=on_step, source=source)


def measure_command(command: Sequence[str], out: Path | str | None = None, options: Options | None = None, quiet: bool = False) -> Run:
    """Run `command` and return what was measured meanwhile, its whole tree of processes included; `about` holds its exit status.

    `quiet` sends its standard output to standard error. Raises `InputError` if it cannot be started.
    """
    if not command:
        raise InputError("command", "", "write one after --")
    found = here.gpus()
    document = here.machine(found, len(found))
    about = {"host": here.host(), "began": _now()}
    job = {"command": list(command), "gpus": max(len(found), 1)}
    plan = Plan(job, document, {}, "cuda" if found else "cpu", options or Options(), this_process(), now_ns(), about)
    return finish(begin(plan, place_for(out, Path(command[0]).name)), plan, quiet=quiet)


def read_job(path: str, changes: Sequence[str] = (), machine: str | None = None) -> Job:
    """The Job in a file, for this machine: what the file says of a machine is meant for predicting. Raises `InputError`."""
    return jobfile.read(path, changes, machine or _stand_in(here.gpus())).job


def _stand_in(found: list[str]) -> str:
    """A catalogue entry against which a Job is checked: this machine's where it is known, else one that takes any number of ranks."""
    name = str(here.machine(found, len(found))["name"])
    return name if name in catalogue.machines() else jobfile.DEFAULT_MACHINE


def plan_of(job: Job, options: Options, machine: str | None = None) -> Plan:
    """The plan of measuring `job` here. Raises `InputError` for what this machine cannot run."""
    found = here.gpus()
    asked = jobfile.ask(job.model_copy(update={"machine": machine or _stand_in(found)}))
    if found and job.gpus > len(found) * options.nodes.count:
        raise InputError("gpus", job.gpus, f"this machine has {len(found)}: write {len(found)} or fewer, or --nodes for more machines")
    document = here.machine(found, job.gpus if found else 0, machine)
    about = {"host": here.host(), "versions": packages.installed(), "began": _now()}
    written = asked.job.model_copy(update={"machine": machine or document["name"]}).model_dump(mode="json")
    config = catalogue.model_entry(job.model, job.allow_code).config
    return Plan(written, document, config, "cuda" if found else "cpu", options, this_process(), now_ns(), about)


def place_for(out: Path | str | None, name: str) -> Place:
    """Where to measure: `out`, which may hold an earlier Run, or a new folder of that name and the time under membound-runs."""
    if out is not None:
        return Place(Path(out))
    stamp = time.strftime("%Y%m%d-%H%M%S")
    plain = "".join(sign if sign.isalnum() or sign in "-._" else "-" for sign in Path(name).name) or "run"
    place = Place(Path("membound-runs") / f"{plain}-{stamp}")
    number = 2
    while place.folder.exists():
        place = Place(Path("membound-runs") / f"{plain}-{stamp}-{number}")
        number += 1
    return place


def begin(plan: Plan, place: Place) -> Place:
    """Make the folder a Run already: one that has nothing to tell yet, and says how to have more of it.

    Raises `InputError` for a folder that holds something else or a measurement of which only the raw files exist, `StorageError`.
    """
    if place.unfinished():
        cure = f"holds a measurement that was not put together: membound measure --recover {place.folder}, or choose another folder"
        raise InputError("out", str(place.folder), cure)
    why = Missing(f"this measurement has not been put together: membound measure --recover {place.folder}")
    fits = Fits(True, True, f"not known: membound measure --recover {place.folder}")
    values = dict.fromkeys(QUANTITIES, why)
    about = {"membound": __version__, **plan.about, "ended": {"how": "unfinished", "said": why.reason, "status": None, "asked": None}}
    store.write(Run("measured", plan.job, plan.machine, fits, values, about=about), place.folder)
    return place


def finish(place: Place, plan: Plan, on_step: Hear = lambda step: None, quiet: bool = False, source: Source | None = None) -> Run:
    """Run the plan, put the Run together and write it in place of the raw files. Raises `MeasureError` where the Job failed."""
    with signals.held() as held:
        session.run(place, plan, held, on_step, quiet, source or Source())
        ended = of(place, plan)
        run = recover(place.folder)
    if ended.how == "failed" and plan.command is None:
        raise MeasureError(f"{ended.said} (the run so far is in {place.folder})")
    return run


def recover(folder: Path) -> Run:
    """The Run of a measurement that ended in any way, written in place of its raw files.

    Raises `RecordError` where none began, or where it is still running.
    """
    run = assemble(folder)
    if run.about["ended"]["how"] == "running" and run.about["process"]["pid"] != os.getpid():
        raise RecordError(f"{folder}: is still being measured, by process {run.about['process']['pid']}")
    store.write(run, folder)
    return run


def load(folder: Path | str) -> Run:
    """The Run in `folder`, whoever made it; of a measurement that is under way or was killed, what it has written down so far."""
    place = Place(Path(folder))
    return assemble(place.folder) if place.unfinished() else store.read(place.folder)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
