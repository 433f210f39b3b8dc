"""`membound report`: one page from any Runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from membound.cli import output

if TYPE_CHECKING:
    from membound.run.schema import Run

_Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs, as predict, measure and study write them with --out.")]
_Out = Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write DIR/index.html; usually a folder 'report' next to the runs.")]
_Title = Annotated[str, typer.Option("--title", metavar="TEXT", help="Title of the page; without it, the models' names.")]


def report(runs: _Runs, out: _Out = None, title: _Title = "") -> None:
    """Make one HTML page of the RUNs: values, curves over time and tables, like curves over one another. It needs no network and no server."""
    from membound.report.page import files, of_runs
    from membound.run import store

    place = out if out is not None else Path(os.path.commonpath([run.absolute().parent for run in runs])) / "report"
    files.check_place(place / files.NAME)
    found: dict[str, Run] = {label: store.read(run) for label, run in zip(labels(runs), runs, strict=True)}
    path = files.write(of_runs.page(found, title), place)
    output.write(f"written to {path}\n")


def labels(runs: list[Path]) -> list[str]:
    """A name for each folder: as many of its last parts as tell it from the others, and a number where nothing does."""
    parts = [run.absolute().parts for run in runs]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{run.absolute().name} ({index + 1})" for index, run in enumerate(runs)]
