"""`membound study`: sweeps and comparisons that come with membound, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from membound import units
from membound.cli import output, report_study, validation_study
from membound.errors import InputError, UnknownNameError

NAMES = ("hbm-fine-tuning", "validation", "calibration")

_Name = Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(NAMES)}.")]
_Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write tables, JSON and a page into this folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to standard output and nothing else.")]
_Group = Annotated[list[str] | None, typer.Option("--group", metavar="NAME", help="Compare rows of this group only; may be given several times.")]
_Only = Annotated[str | None, typer.Option("--only", metavar="PART", help=f"Run one part of the study: {' or '.join(validation_study.PARTS)}.")]
_Measured = Annotated[Path, typer.Option(metavar="DIR", help="Records of measured runs to compare with as well, where there are any.")]
_Machine = Annotated[str, typer.Option("--measured-on", metavar="NAME", help="Machine of those records.")]
_OWN: Final = [Path("validation/h100"), Path("validation/h200")]
_Own = Annotated[
    list[Path] | None, typer.Option("--own-runs", metavar="DIR", help="Measured Runs of `validation/measure_jobs.py` to compare with; repeatable.")
]
_Memory = Annotated[str, typer.Option("--capture-memory", metavar="SIZE", help="Memory that a capture may take of this computer.")]
_Measure = Annotated[bool, typer.Option("--measure", help="Run it for real on this machine's GPUs (hbm-fine-tuning).")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="With --measure: say what would be measured and what predicted, and why; nothing is run.")]
_Steps = Annotated[int | None, typer.Option("--steps", metavar="N", help="With --measure: optimizer steps of each job, warm-up included.")]
_Weights = Annotated[
    str | None, typer.Option("--weights", metavar="host|gpu", help="With --measure: where random weights are made; on the GPU it is quicker.")
]
_JobTime = Annotated[str | None, typer.Option("--job-time", metavar="TIME", help="With --measure: end a job that takes longer, loading included.")]
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
    own: _Own = None,
    capture_memory: _Memory = "8 GiB",
    capture_time: _Time = "30 min",
    measure: _Measure = False,
    dry_run: _DryRun = False,
    steps: _Steps = None,
    machine_here: _Here = None,
    weights: _Weights = None,
    job_time: _JobTime = None,
) -> None:
    """Run the study NAME. `hbm-fine-tuning`: the report's figures and tables, ours beside published, as one page.
    `validation`: every published row of memory and speed, predicted beside published; a second run of either goes on.
    `calibration`: every measured kernel, predicted from the others."""
    if name not in NAMES:
        raise UnknownNameError("study", name, NAMES)
    measuring = report_study.Measuring(measure, dry_run, steps, machine_here, weights, job_time)
    if name == "hbm-fine-tuning":
        report_study.run(out, as_json, measuring)
        return
    if measuring != report_study.Measuring():
        raise InputError("--measure", name, "goes with hbm-fine-tuning alone")
    if name == "calibration":
        _calibrate(out, as_json)
        return
    from membound.ghost.capture import Limits
    from membound.ghost.servers import preloaded
    from membound.study.predicting import Predictor

    limits = Limits(units.parse(capture_memory, "B", "--capture-memory"), units.parse(capture_time, "s", "--capture-time"))
    with preloaded() as start:
        predictor = Predictor(limits=limits, start=start)
        validation_study.run(predictor, group or [], only, validation_study.Records(measured, machine, own or _OWN), out, as_json)


def _calibrate(out: Path | None, as_json: bool) -> None:
    from membound.study.calibration import leave_one_out

    result = leave_one_out.run()
    if out is not None:
        leave_one_out.write(result, out)
    if as_json:
        output.write_json(leave_one_out.document(result))
        return
    from membound.cli import calibration_tables

    output.show(calibration_tables.calibration(result))
    if out is not None:
        output.write(f"\nwritten to {out}\n")
