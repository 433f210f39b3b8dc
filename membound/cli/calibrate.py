"""`membound calibrate`: measure this machine's GPU, so that predictions rest on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from membound import units
from membound.cli import output
from membound.cli.options import AsJson, ThisMachine
from membound.errors import InputError

if TYPE_CHECKING:
    from membound.study.calibration.fitting import Outcome

# Time that a calibration may be given, s: with less no family of kernels would be whole, with more nothing would be left to measure.
_LEAST, _MOST = 10.0, 3600.0
_GIVEN: Final = "240"

_Seconds = Annotated[str, typer.Option("--seconds", metavar="TIME", help="Begin nothing after so long; what was left out is named.")]
_Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the profile here, not into your profiles.")]
_Rows = Annotated[list[Path] | None, typer.Option("--rows", metavar="FILE", help="Fit rows measured before, maybe elsewhere; measure nothing.")]
_Dry = Annotated[bool, typer.Option("--dry", help="Rehearse on the processor, tiny: shows that all of it runs, keeps nothing.")]


def calibrate(
    seconds: _Seconds = _GIVEN,
    out: _Out = None,
    machine: ThisMachine = None,
    rows: _Rows = None,
    as_json: AsJson = False,
    dry: _Dry = False,
) -> None:
    """Measure what this GPU and its host really do, within five minutes, and write a profile that predictions use from then on."""
    from membound.study.calibration import fitting

    given = units.parse(seconds, "s", "--seconds")
    if not _LEAST <= given <= _MOST:
        raise InputError("--seconds", seconds, f"between {_LEAST:g} and {_MOST:g}")
    if dry and out is not None:
        raise InputError("--out", str(out), "--dry keeps nothing: leave one of the two out")
    if dry and rows:
        raise InputError("--rows", str(rows[0]), "--dry rehearses measuring: leave one of the two out")
    if rows:
        _show(fitting.from_rows(rows, out, machine), as_json)
    else:
        _show(fitting.calibrate(given, out, machine, dry, _hear), as_json)


def _hear(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        from membound.study.calibration import fitting

        output.write_json(fitting.document(outcome))
        return
    from membound.cli import calibrate_tables

    for renderable in calibrate_tables.tables(outcome):
        output.show(renderable)
    output.write("\n".join(calibrate_tables.lines(outcome)) + "\n")
