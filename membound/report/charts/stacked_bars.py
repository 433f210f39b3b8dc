"""Stacked bars: what a quantity is made of, over categories."""

from __future__ import annotations

from dataclasses import dataclass

from membound.report.charts.bars import Values, check_lengths
from membound.report.charts.data import Cell, Column, Data
from membound.report.charts.figure import Figure, Reference


@dataclass(frozen=True)
class Part:
    """One part of every bar, None where a bar has none. SI units."""

    name: str
    values: Values


@dataclass(frozen=True, kw_only=True)
class StackedBars(Figure):
    """One bar per category, its parts end to end; `published` totals as diamonds. Raises `InputError` for columns of other lengths."""

    unit: str
    categories: tuple[str, ...]
    parts: tuple[Part, ...]
    published: Values = ()
    references: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        check_lengths(self.title, self.categories, [self.published, *(part.values for part in self.parts)])

    def references_of(self) -> tuple[Reference, ...]:
        """The lines across."""
        return self.references

    def data(self) -> Data:
        """One row per category, one column per part."""
        columns = (Column("category"), *(Column(part.name, self.unit) for part in self.parts), Column("published total", self.unit))
        rows: list[tuple[Cell, ...]] = []
        for at, category in enumerate(self.categories):
            rows.append((category, *(part.values[at] for part in self.parts), self.published[at] if self.published else None))
        return Data(columns, rows)
