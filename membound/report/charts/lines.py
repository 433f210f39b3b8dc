"""Lines: a quantity over another, such as a gain over a clock."""

from __future__ import annotations

from dataclasses import dataclass

from membound.errors import InputError
from membound.report.charts.bubbles import Axis
from membound.report.charts.data import Cell, Column, Data
from membound.report.charts.figure import Figure, Reference


@dataclass(frozen=True)
class Line:
    """Points joined in order of x; `low` and `high` are its band. A published line has points alone. SI units."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    published: bool = False

    def __post_init__(self) -> None:
        if any(column and len(column) != len(self.x) for column in (self.y, self.low, self.high)) or len(self.y) != len(self.x):
            raise InputError(f"line {self.name!r}", (len(self.x), len(self.y), len(self.low), len(self.high)), "give as many values as there are x")


@dataclass(frozen=True, kw_only=True)
class Lines(Figure):
    """Lines over `x`. A logarithmic axis shows values above 0 only."""

    x: Axis
    y: Axis
    lines: tuple[Line, ...]
    log_x: bool = False
    log_y: bool = False
    x_references: tuple[Reference, ...] = ()
    y_references: tuple[Reference, ...] = ()

    def references_of(self) -> tuple[Reference, ...]:
        """Those of both axes."""
        return self.x_references + self.y_references

    def data(self) -> Data:
        """One row per point."""
        columns = (Column("line"), Column(self.x.name, self.x.unit), *(Column(n, self.y.unit) for n in (self.y.name, "low", "high")))
        rows: list[tuple[Cell, ...]] = []
        for line in self.lines:
            for at, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
                rows.append((line.name, x, y, line.low[at] if line.low else None, line.high[at] if line.high else None))
        return Data((*columns, Column("published")), [(*row, "yes" if self._published(row[0]) else "no") for row in rows])

    def _published(self, name: Cell) -> bool:
        return any(line.published for line in self.lines if line.name == name)
