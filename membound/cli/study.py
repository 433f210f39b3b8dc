"""`membound study`: sweeps and comparisons that come with membound, by name."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from membound import units
from membound.cli import output, report_study
from membound.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from membound.study.predicting import Predictor
    from membound.study.speed_validation_result import SpeedResult
    from membound.study.validation_result import Result

NAMES = ("hbm-fine-tuning", "validation", "calibration")
PARTS = ("memory", "speed", "measured")

_Name = Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(NAMES)}.")]
_Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write tables, JSON and a page into this folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to standard output and nothing else.")]
_Group = Annotated[list[str] | None, typer.Option("--group", metavar="NAME", help="Compare rows of this group only; may be given several times.")]
_Only = Annotated[str | None, typer.Option("--only", metavar="PART", help=f"Run one part of the study: {' or '.join(PARTS)}.")]
_Measured = Annotated[Path, typer.Option(metavar="DIR", help="Records of measured runs to compare with as well, where there are any.")]
_Machine = Annotated[str, typer.Option("--measured-on", metavar="NAME", help="Machine of those records.")]
_Own = Annotated[Path, typer.Option("--own-runs", metavar="DIR", help="Measured Runs of `validation/measure_jobs.py` to compare with.")]
_Memory = Annotated[str, typer.Option("--capture-memory", metavar="SIZE", help="Memory that a capture may take of this computer.")]
_Measure = Annotated[bool, typer.Option("--measure", help="Run it for real on this machine's GPUs (hbm-fine-tuning).")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="With --measure: say what would be measured and what predicted, and why; nothing is run.")]
_Steps = Annotated[int | None, typer.Option("--steps", metavar="N", help="With --measure: optimizer steps of each job, warm-up included.")]
_Here = Annotated[str | None, typer.Option("--machine", "-m", metavar="NAME", help="With --measure: what this machine is in the catalogue.")]
_Time = Annotated[str, typer.Option("--capture-time", metavar="TIME", help="Time that a capture may take.")]


def study(
    name: _Name,
    out: _Out = None,
    as_json: _Json = False,
    group: _Group = None,
    only: _Only = None,
    measured: _Measured = Path("validation/h200"),
    machine: _Machine = "h200",
    own: _Own = Path("validation/h100"),
    capture_memory: _Memory = "8 GiB",
    capture_time: _Time = "30 min",
    measure: _Measure = False,
    dry_run: _DryRun = False,
    steps: _Steps = None,
    machine_here: _Here = None,
) -> None:
    """Run the study NAME. `hbm-fine-tuning`: the report's figures and tables, ours beside published, as one page.
    `validation`: every published row of memory and speed, predicted beside published; a second run of either goes on.
    `calibration`: every measured kernel, predicted from the others."""
    if name not in NAMES:
        raise UnknownNameError("study", name, NAMES)
    measuring = report_study.Measuring(measure, dry_run, steps, machine_here)
    if name == "hbm-fine-tuning":
        report_study.run(out, as_json, measuring)
        return
    if measuring != report_study.Measuring():
        raise InputError("--measure", name, "goes with hbm-fine-tuning alone")
    if name == "calibration":
        _calibrate(out, as_json)
        return
    from membound.ghost.capture import Limits
    from membound.study import speed_validation_page, speed_validation_result, validation_page, validation_result
    from membound.study.predicting import Predictor

    limits = Limits(units.parse(capture_memory, "B", "--capture-memory"), units.parse(capture_time, "s", "--capture-time"))
    predictor = Predictor(limits=limits)
    if only == "measured":
        _own_runs(predictor, own, out, as_json)
        return
    memory_groups, speed_groups = _groups(group or [], only)
    memory = None if memory_groups is None else _validate(predictor, memory_groups, measured, machine)
    if out is not None and memory is not None:
        validation_result.write(memory, out, validation_page.page(memory))
    speed = None if speed_groups is None else _validate_speed(predictor, speed_groups)
    if out is not None and speed is not None:
        speed_validation_result.write(speed, out / "speed", speed_validation_page.page(speed))
    _show(memory, speed, out, as_json)


def _own_runs(predictor: Predictor, folder: Path, out: Path | None, as_json: bool) -> None:
    from membound.study import own_runs, own_runs_page

    found = own_runs.compare(folder, predictor, _say)
    text = own_runs_page.page(found)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "validation-measured.md").write_text(text, encoding="utf-8")
    if as_json:
        output.write_json({"schema": 1, "runs": [dataclasses.asdict(run) for run in found]})
        return
    output.write(text if out is None else f"written to {out / 'validation-measured.md'}\n")


def _calibrate(out: Path | None, as_json: bool) -> None:
    from membound.study import calibration

    result = calibration.run()
    if out is not None:
        calibration.write(result, out)
    if as_json:
        output.write_json(calibration.document(result))
        return
    from membound.cli import calibration_tables

    output.show(calibration_tables.calibration(result))
    if out is not None:
        output.write(f"\nwritten to {out}\n")


def _show(memory: Result | None, speed: SpeedResult | None, out: Path | None, as_json: bool) -> None:
    from membound.study import speed_validation_result, validation_result

    if as_json:
        document = validation_result.document(memory) if memory is not None else {"schema": validation_result.SCHEMA}
        output.write_json(document if speed is None else {**document, "speed": speed_validation_result.document(speed)})
        return
    from membound.cli import speed_tables, study_tables

    if memory is not None:
        output.show(study_tables.validation(memory))
    if speed is not None:
        output.show(speed_tables.speed(speed))
    if out is not None:
        output.write(f"\nwritten to {out}\n")


def _validate(predictor: Predictor, groups: list[str], measured: Path, machine: str) -> Result:
    from membound.study import validation, validation_measured
    from membound.study.validation_result import Result

    comparison = validation.Comparison(predictor, _say)
    done = comparison.compare(validation.outcomes(groups))
    own = [] if groups else validation_measured.compare(measured, machine, predictor, _say)
    return Result(tuple(done), comparison.versions, tuple(own))


def _validate_speed(predictor: Predictor, groups: list[str]) -> SpeedResult:
    from membound.study import speed_validation
    from membound.study.published_speed import rows
    from membound.study.speed_validation_result import SpeedResult
    from membound.study.speed_validation_statistics import repeats

    comparison = speed_validation.SpeedComparison(predictor, _say)
    done = comparison.compare(speed_validation.outcomes(groups))
    return SpeedResult(tuple(done), comparison.versions, tuple(repeats(rows.read())))


def _groups(asked: list[str], only: str | None) -> tuple[list[str] | None, list[str] | None]:
    """The groups of memory and of speed to compare: none named is all of them; None where that part is not to run."""
    from membound.study.published.outcome import GROUPS
    from membound.study.published_speed.outcome import GROUPS as SPEED_GROUPS

    if only is not None and only not in PARTS:
        raise UnknownNameError("--only", only, PARTS)
    known = {part: groups for part, groups in zip(("memory", "speed"), (GROUPS, SPEED_GROUPS), strict=True) if only in {None, part}}
    for name in asked:
        if not any(name in groups for groups in known.values()):
            raise UnknownNameError("--group", name, set().union(*known.values()))
    wanted = {part: [name for name in asked if name in groups] for part, groups in known.items()}
    kept = {part: names for part, names in wanted.items() if names or not asked}
    return kept.get("memory"), kept.get("speed")


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
