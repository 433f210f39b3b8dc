"""`membound predict`: will it fit, and what takes the memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from membound.cli import output
from membound.cli.options import Allocator, AsJson, CaptureMemory, CaptureTime, JobMachine, NoCache, limits_of, settings_of

if TYPE_CHECKING:
    from membound.run.schema import Run
    from membound.spec.jobfile import Asked
    from membound.study.predicting import Prediction, Predictor

_JobFile = Annotated[str, typer.Argument(metavar="JOB", help="Job file (YAML), or - for standard input.")]
_Set = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a field: recipe.micro_batch=8, machine.gpu.hbm.clock=1593MHz.")
]
_Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write the run, its tables and figures into this folder.")]
_NoAdvice = Annotated[bool, typer.Option("--no-advice", help="Do not look for changes that fit.")]


def predict(
    job: _JobFile,
    machine: JobMachine = None,
    changes: _Set = None,
    out: _Out = None,
    as_json: AsJson = False,
    allocator: Allocator = "",
    no_cache: NoCache = False,
    no_advice: _NoAdvice = False,
    capture_memory: CaptureMemory = "4 GiB",
    capture_time: CaptureTime = "10 min",
) -> None:
    """Predict the memory and the speed of a Job on a Machine, without either."""
    from membound.spec import jobfile
    from membound.study import answers
    from membound.trace import cache

    limits = limits_of(capture_memory, capture_time)
    settings = settings_of(allocator)
    asked = jobfile.read(job, changes or (), machine)
    kept = answers.Answers(cache.default_folder())
    # A folder gets all tables and the trace, which an answer has not.
    key = None if no_cache or out is not None else answers.key(asked.job, asked.machine, settings, advised=not no_advice)
    run = None if key is None else kept.get(key)
    if run is None:
        from membound.study.predicting import Predictor

        with output.progress() as (hear, name):
            predictor = Predictor(settings, hear, limits, cached=not no_cache)
            found = predictor.predict(asked.job, asked.machine)
            run = found.run if no_advice else _with_cures(asked, found, predictor, name)
        if out is not None:
            _export(out, run, found)
        if key is not None:
            kept.put(key, run)
    _print(run, as_json, out)


def _with_cures(asked: Asked, found: Prediction, predictor: Predictor, name: Callable[[str], None]) -> Run:
    if found.run.fits.gpu and found.run.fits.host:
        return found.run
    from membound.study import plan

    advice = plan.advise(asked.job, found, lambda job: predictor.predict(job, asked.machine), lambda what: name(f"does not fit; trying {what}"))
    return plan.with_cures(found.run, advice)


def _export(folder: Path, run: Run, found: Prediction) -> None:
    from membound.report import export, perfetto_times
    from membound.run import store

    store.write(run, folder)
    export.write_all(folder, run, found.trace, perfetto_times.of(found.timing.played))


def _print(run: Run, as_json: bool, out: Path | None) -> None:
    if as_json:
        output.write_json(run.document())
        return
    from membound.report import terminal

    output.show(terminal.summary(run))
    if out is not None:
        output.write(f"\nwritten to {out}\n")
