"""`membound sweep`: one job over many machines and settings, from one capture; or measured at each of a GPU's memory clocks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from membound.cli import output
from membound.cli.options import Allocator, AsJson, CaptureMemory, CaptureTime, JobMachine, NoCache, limits_of, settings_of
from membound.errors import InputError

if TYPE_CHECKING:
    from membound.run.schema import Run
    from membound.study.predicting import Predictor
    from membound.study.sweep.grid import Grid
    from membound.study.sweep.predicting import Sweep
    from membound.study.sweep.switching import Sweep as Measured

_JobFile = Annotated[str | None, typer.Argument(metavar="JOB", help="Job file (YAML), or - for standard input.")]
_Over = Annotated[
    list[str] | None,
    typer.Option("--over", metavar="KEY=V1,V2", help="A field and its values: machine.gpu.hbm.clock=1593MHz,2619MHz, recipe.micro_batch=1,2."),
]
_Set = Annotated[list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a field at every point.")]
_Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write the table (Parquet, CSV), JSON and a figure into this folder.")]
_Runs = Annotated[bool, typer.Option("--runs", help="With --out: predict each point in full and keep it as a run as well.")]
_Measure = Annotated[bool, typer.Option("--measure", help="Switch this machine's memory clock, measure at each, and give it back.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="With --measure: print every call that would be made; none is.")]
_Resume = Annotated[Path | None, typer.Option("--resume", metavar="PLAN", help="Go on with a plan that an earlier measured sweep wrote.")]
_Driver = Annotated[str, typer.Option("--driver", metavar="nvml|simulated:FOLDER", help="Whose clocks are switched: see docs/clocks.md.")]
_Steps = Annotated[int, typer.Option("--steps", metavar="N", help="With --measure: optimizer steps at each clock, warm-up included.")]


def sweep(
    job: _JobFile = None,
    over: _Over = None,
    machine: JobMachine = None,
    changes: _Set = None,
    out: _Out = None,
    as_json: AsJson = False,
    runs: _Runs = False,
    measure: _Measure = False,
    dry_run: _DryRun = False,
    resume: _Resume = None,
    driver: _Driver = "nvml",
    steps: _Steps = 20,
    allocator: Allocator = "",
    no_cache: NoCache = False,
    capture_memory: CaptureMemory = "4 GiB",
    capture_time: CaptureTime = "10 min",
) -> None:
    """Predict a Job at every combination of values, from one capture per job; say what bounds each point and what faster parts would buy."""
    from membound.cli import sweep_measure
    from membound.study.predicting import Predictor

    if (job is None) == (resume is None) or (dry_run and not measure) or (runs and out is None):
        raise typer.BadParameter("give a job file, or --resume alone; --dry-run goes with --measure, --runs with --out")
    if resume is not None:
        sweep_measure.resume(resume, as_json)
        return
    listed, set_ = over or [], changes or []
    grid = _grid(str(job), listed, set_, machine)
    if dry_run:
        sweep_measure.rehearse(driver, listed, grid.job.gpus, as_json)
        return
    measured: Measured[Run] | None = None
    if measure:
        errand = sweep_measure.errand(str(job), out, set_, machine, steps)
        measured, refused = sweep_measure.measure(driver, listed, grid.job.gpus, errand)
        if refused is None or (measured is not None and measured.plan is not None):
            _show_measured(measured, grid, as_json)
            return
        sweep_measure.say(refused, "predicted instead")
    predictor = Predictor(settings_of(allocator), limits=limits_of(capture_memory, capture_time), cached=not no_cache)
    found = _predicted(grid, predictor)
    if out is not None:
        _write(found, grid, predictor, out, runs)
    _show(found, measured, grid, as_json, out)


def _grid(job: str, over: list[str], changes: list[str], machine: str | None) -> Grid:
    from membound.spec import jobfile
    from membound.study.sweep.grid import Axis, parsed_changes, whole

    axes = [Axis.parse(text) for text in over]
    of_job, of_machine = parsed_changes(changes)
    keys = [axis.key for axis in axes]
    for key in keys:
        if keys.count(key) > 1 or key in {change.partition("=")[0].strip() for change in of_job}:
            raise InputError("--over", key, "give each field once")
    asked = jobfile.read(job, changes, machine)
    return whole(asked.job, {axis.key: axis.values for axis in axes}, machine, of_machine)


def _predicted(grid: Grid, predictor: Predictor) -> Sweep:
    from membound.study.sweep import predicting as study

    def tell(what: str, done: int, of: int) -> None:
        print(f"\r\033[K{what}: {done:,} of {of:,}", end="\n" if done == of else "", file=sys.stderr, flush=True)

    return study.sweep(grid, predictor, tell) if sys.stderr.isatty() else study.sweep(grid, predictor)


def _write(found: Sweep, grid: Grid, predictor: Predictor, out: Path, runs: bool) -> None:
    from membound.cli import sweep_tables

    sweep_tables.write(found, out)
    if not runs:
        return
    from membound.run import store

    digits = len(str(len(found.points)))
    for number, point in enumerate(found.points, 1):
        if point.priced is not None:
            asked = grid.asked(point.at)
            store.write(predictor.predict(asked.job, asked.machine).run, out / "runs" / str(number).zfill(digits))


def _show(found: Sweep, measured: Measured[Run] | None, grid: Grid, as_json: bool, out: Path | None) -> None:
    from membound.cli import sweep_measure, sweep_tables
    from membound.study.sweep import table

    if as_json:
        document = table.document(found)
        output.write_json({**document, "measured": _measured_document(measured, grid)} if measured is not None else document)
        return
    if measured is not None and measured.points:
        output.show(sweep_measure.table(measured))
    output.show(sweep_tables.table(found))
    if out is not None:
        output.write(f"\nwritten to {out}\n")


def _show_measured(measured: Measured[Run] | None, grid: Grid, as_json: bool) -> None:
    from membound.cli import sweep_measure

    assert measured is not None
    if as_json:
        output.write_json(_measured_document(measured, grid))
        return
    output.show(sweep_measure.table(measured))
    if measured.plan is not None:
        output.write("\n".join((f"{measured.refused}; the plan is in {measured.plan}:", *measured.steps)) + "\n")


def _measured_document(measured: Measured[Run], grid: Grid) -> dict[str, Any]:
    from membound.study.sweep import measuring
    from membound.study.sweep.grid import numbers

    clocks = numbers(grid.axes[0]) or ()
    return measuring.document(measured, [round(clock) for clock in clocks])
