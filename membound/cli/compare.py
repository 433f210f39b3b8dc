"""`membound compare`: two Runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from membound import units
from membound.cli import output
from membound.cli.options import AsJson

if TYPE_CHECKING:
    from rich.console import RenderableType

    from membound.run.schema import Missing, Run, Value
    from membound.study.compare import Comparison, Row

_First = Annotated[Path, typer.Argument(metavar="A", help="Folder of a run: measured, predicted or published.")]
_Second = Annotated[Path, typer.Argument(metavar="B", help="Folder of another run of the same job on the same machine.")]
_Unlike = Annotated[bool, typer.Option("--unlike", help="Compare them although they are of different jobs or machines.")]


def compare(first: _First, second: _Second, as_json: AsJson = False, unlike: _Unlike = False) -> None:
    """Lay the runs A and B side by side, with ratios, and say which observed values lie inside the predicted band."""
    from membound.study import compare as study
    from membound.study.measuring import load

    found = study.compare(load(first), load(second), unlike)
    if as_json:
        output.write_json(found.document())
        return
    output.show(table(found))


def table(found: Comparison) -> RenderableType:
    """The comparison on a terminal: quantities that at least one of the two has."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    shown = [row for row in found.rows if _has(row)]
    grid = Table(title=f"{_name(found.first)}  against  {_name(found.second)}", title_justify="left")
    for head in ("quantity", f"A ({found.first.origin})", f"B ({found.second.origin})", "B / A", "in the band"):
        grid.add_column(head, justify="left" if head in {"quantity", "in the band"} else "right")
    for row in shown:
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        grid.add_row(row.name, escape(_cell(row.first)), escape(_cell(row.second)), ratio, _verdict(row.inside))
    lines: list[RenderableType] = [f"differs in {escape(each)}" for each in found.differences]
    if found.judged:
        lines.append(f"{found.inside} of {found.judged} observed values lie inside the predicted band")
    return Group(grid, *lines)


def _has(row: Row) -> bool:
    from membound.run.schema import Value

    return isinstance(row.first, Value) or isinstance(row.second, Value)


def _cell(value: Value | Missing) -> str:
    from membound.run.schema import Missing

    if isinstance(value, Missing):
        return "not known"
    return show(value.value, value.unit)


def show(value: float, unit: str) -> str:
    """A value as people read it, its unit after it."""
    if unit in {"parameter", "token/s", "sample/s"}:
        return f"{value:,.0f} {unit}" if value >= 100 else f"{value:,.3g} {unit}"
    return units.show(value, unit, 4)


def _verdict(inside: bool | None) -> str:
    return "" if inside is None else "yes" if inside else "[bold]no[/bold]"


def _name(run: Run) -> str:
    job = run.job
    what = job.get("model") or " ".join(str(word) for word in job.get("command", ["a job"]))
    return f"{what} on {run.machine.get('name', 'a machine')}"
