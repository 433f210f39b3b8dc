"""The data behind a figure, as columns; and as CSV that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from membound.report.inert import inert
from membound.run.schema import Missing


@dataclass(frozen=True)
class Amount:
    """A number with a unit of its own, SI, and the band around it, where there is one."""

    value: float
    unit: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Noted:
    """Words with smaller ones under them, which the CSV leaves out."""

    text: str
    note: str


Cell = str | int | float | Amount | Noted | Missing | None
"""What a table may hold. A plain number is in its column's SI unit; None: nothing was to be had."""

# OWASP, "CSV Injection": what spreadsheets take for the beginning of a formula.
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Column:
    """A column's head. `unit` is SI, '' for words and plain numbers; `digits` are significant ones."""

    name: str
    unit: str = ""
    digits: int = 3

    @property
    def head(self) -> str:
        """Name and unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class Data:
    """Rows under columns."""

    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Cell]]

    def csv(self) -> str:
        """As CSV, numbers in SI units, a missing value as an empty cell, a band as two more columns."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        widths = [3 if any(_has_band(row[at]) for row in self.rows) else 1 for at in range(len(self.columns))]
        heads = [(column.head, f"{column.name} low", f"{column.name} high")[:width] for column, width in zip(self.columns, widths, strict=True)]
        writer.writerow(text_cell(head) for group in heads for head in group)
        for row in self.rows:
            writer.writerow(cell for value, width in zip(row, widths, strict=True) for cell in _cells(value)[:width])
        return out.getvalue()


def text_cell(text: str) -> str:
    """Text for a CSV cell: visible characters only, and never a formula."""
    shown = inert(text, 1000)
    return f"'{shown}" if shown.startswith(_FORMULAS) else shown


def _has_band(value: Cell) -> bool:
    return isinstance(value, Amount) and value.low is not None


def _cells(value: Cell) -> tuple[object, object, object]:
    if isinstance(value, Amount):
        return _cell(value.value), _cell(value.low), _cell(value.high)
    return _cell(value.text if isinstance(value, Noted) else value), "", ""


def _cell(value: str | int | float | Missing | None) -> object:
    if isinstance(value, str):
        return text_cell(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    return "" if value is None or isinstance(value, Missing) else value
