"""`membound study`: sweeps and comparisons that come with membound, by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from membound import units
from membound.cli import output
from membound.errors import UnknownNameError

if TYPE_CHECKING:
    from membound.study.predicting import Predictor
    from membound.study.validation_result import Result

NAMES = ("validation",)

_Name = Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(NAMES)}.")]
_Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write tables, JSON and a page into this folder.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to standard output and nothing else.")]
_Group = Annotated[list[str] | None, typer.Option("--group", metavar="NAME", help="Compare rows of this group only; may be given several times.")]
_Measured = Annotated[Path, typer.Option(metavar="DIR", help="Records of measured runs to compare with as well, where there are any.")]
_Machine = Annotated[str, typer.Option("--measured-on", metavar="NAME", help="Machine of those records.")]
_Memory = Annotated[str, typer.Option("--capture-memory", metavar="SIZE", help="Memory that a capture may take of this computer.")]
_Time = Annotated[str, typer.Option("--capture-time", metavar="TIME", help="Time that a capture may take.")]


def study(
    name: _Name,
    out: _Out = None,
    as_json: _Json = False,
    group: _Group = None,
    measured: _Measured = Path("validation/h200"),
    machine: _Machine = "h200",
    capture_memory: _Memory = "8 GiB",
    capture_time: _Time = "30 min",
) -> None:
    """Run the study NAME. `validation`: every published memory row, predicted beside published; traces are kept, so a second run goes on."""
    if name not in NAMES:
        raise UnknownNameError("study", name, NAMES)
    from membound.ghost.capture import Limits
    from membound.study import validation_page, validation_result
    from membound.study.predicting import Predictor

    _check_groups(group or [])
    limits = Limits(units.parse(capture_memory, "B", "--capture-memory"), units.parse(capture_time, "s", "--capture-time"))
    result = _validate(Predictor(limits=limits), group or [], measured, machine)
    if out is not None:
        validation_result.write(result, out, validation_page.page(result))
    if as_json:
        output.write_json(validation_result.document(result))
        return
    from membound.cli import study_tables

    output.show(study_tables.validation(result))
    if out is not None:
        output.write(f"\nwritten to {out}\n")


def _validate(predictor: Predictor, groups: list[str], measured: Path, machine: str) -> Result:
    from membound.study import validation, validation_measured
    from membound.study.validation_result import Result

    comparison = validation.Comparison(predictor, _say)
    done = comparison.compare(validation.outcomes(groups))
    own = [] if groups else validation_measured.compare(measured, machine, predictor, _say)
    return Result(tuple(done), tuple(own), comparison.versions)


def _check_groups(groups: list[str]) -> None:
    from membound.study.published.outcome import GROUPS

    for name in groups:
        if name not in GROUPS:
            raise UnknownNameError("--group", name, GROUPS)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
