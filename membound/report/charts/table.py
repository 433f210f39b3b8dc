"""A table, shown as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from membound.errors import InputError
from membound.report.charts.data import Cell, Column, Data
from membound.report.charts.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Table(Figure):
    """Rows under columns; of long ones the page shows the first `shown`, and all in the CSV. Raises `InputError` for a row of another length."""

    counted_as: ClassVar[str] = "Table"

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    shown: int = 400

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise InputError(f"table {self.title!r}", len(row), f"give each row {len(self.columns)} cells")

    def data(self) -> Data:
        """All of it."""
        return Data(self.columns, self.rows)
