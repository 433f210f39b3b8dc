"""Figures as the template shows them, one function per kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from membound.report.charts.bars import Bars
from membound.report.charts.bubbles import Bubbles
from membound.report.charts.data import Amount, Cell, Column, Data, Noted
from membound.report.charts.diagram import Diagram
from membound.report.charts.figure import Figure, Reference
from membound.report.charts.lines import Lines
from membound.report.charts.prose import Prose
from membound.report.charts.scale import between, plain, say
from membound.report.charts.stacked_bars import StackedBars
from membound.report.charts.table import Table
from membound.report.charts.time_series import TimeSeries
from membound.report.inert import inert
from membound.report.page.draw_bars import bars, stacked
from membound.report.page.draw_bubbles import bubbles
from membound.report.page.draw_lines import lines
from membound.report.page.drawing import NARROW, WIDE
from membound.report.page.svg import clean
from membound.report.page.time_parts import Moving
from membound.run.schema import Missing

# Rows of the table that stands for a drawing; the CSV has all.
_ROWS: Final = 200
_NUMBER: Final = re.compile(r"[-+~]?[\d.,]+( ?[^\d\s]{1,9})?")


def part(figure: Figure, name: str, label: str, moving: Moving | None = None) -> dict[str, Any]:
    """What the template needs of `figure`, whose element is called `name`."""
    data = figure.data()
    return {
        "id": name,
        "kind": _kind(figure),
        "label": label,
        "title": inert(figure.title, 200),
        "says": inert(figure.says, 1200),
        "source": inert(figure.source, 1200),
        "notes": [inert(note, 800) for note in figure.notes],
        "published": [_published(each, _unit(figure)) for each in figure.references_of() if each.source],
        "kept": list(moving.kept) if moving else [],
        "table": _table(data, figure.shown if isinstance(figure, Table) else _ROWS) if data else None,
        "csv": data.csv() if data and moving is None else None,
        "document": moving.document if moving else None,
        "pictures": _pictures(figure, name),
        "paragraphs": [inert(text, 6000) for text in figure.paragraphs] if isinstance(figure, Prose) else [],
    }


def _kind(figure: Figure) -> str:
    return {TimeSeries: "time", Table: "table", Prose: "prose"}.get(type(figure), "picture")


def _unit(figure: Figure) -> str:
    return figure.unit if isinstance(figure, TimeSeries | Bars | StackedBars) else ""


def _published(line: Reference, unit: str) -> str:
    value = f" {say(line.value, unit)}" if unit else ""
    return f"{inert(line.label, 200)}{value} ({inert(line.source, 400)})"


def _pictures(figure: Figure, name: str) -> dict[str, str]:
    """The drawing for a wide page and for a phone, as SVG."""
    if isinstance(figure, Diagram):
        wide = clean(figure.svg, f"{name}-w-", figure.title)
        return {"wide": wide, "narrow": clean(figure.narrow, f"{name}-n-", figure.title) if figure.narrow else ""}
    draw = _DRAWN.get(type(figure))
    if draw is None:
        return {}
    return {"wide": draw(figure, WIDE, f"{name}-w-"), "narrow": draw(figure, NARROW, f"{name}-n-")}


_DRAWN: Final[dict[type[Figure], Callable[[Any, int, str], str]]] = {Bars: bars, StackedBars: stacked, Bubbles: bubbles, Lines: lines}


def _table(data: Data, shown: int) -> dict[str, Any]:
    rows = [[_cell(value, column) for value, column in zip(row, data.columns, strict=True)] for row in data.rows[:shown]]
    numeric = [_is_numeric(data, at) for at in range(len(data.columns))]
    return {
        "heads": [inert(column.name, 120) for column in data.columns],
        "numeric": numeric,
        "rows": rows,
        "left_out": max(len(data.rows) - shown, 0),
    }


def _is_numeric(data: Data, at: int) -> bool:
    """Whether a column holds numbers, with or without units: aligned to the right."""
    cells = [row[at] for row in data.rows if isinstance(row[at], str | int | float | Amount)]
    return bool(cells) and all(not isinstance(cell, str) or _NUMBER.fullmatch(cell) for cell in cells)


def _cell(value: Cell, column: Column) -> dict[str, str]:
    if isinstance(value, Missing):
        return {"text": "missing", "note": inert(value.reason, 400), "quiet": "yes"}
    if value is None:
        return {"text": "–", "note": "", "quiet": "yes"}
    if isinstance(value, Noted):
        return {"text": inert(value.text, 1000), "note": inert(value.note, 1000), "quiet": ""}
    note = ""
    if isinstance(value, Amount) and value.low is not None and value.high is not None:
        note = between(value.low, value.high, value.unit)
    return {"text": _text(value, column), "note": note, "quiet": ""}


def _text(value: str | int | float | Amount, column: Column) -> str:
    if isinstance(value, Amount):
        return say(value.value, value.unit, 4)
    if isinstance(value, str):
        return inert(value, 1000)
    if isinstance(value, int) and not column.unit:
        return f"{value:,}"
    return say(float(value), column.unit, column.digits) if column.unit else plain(float(value), column.digits)
