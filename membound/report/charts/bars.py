"""Bars: a quantity over categories, one bar a series; a band as a whisker, a published value as a diamond."""

from __future__ import annotations

from dataclasses import dataclass

from membound.errors import InputError
from membound.report.charts.data import Cell, Column, Data
from membound.report.charts.figure import Figure, Reference

Values = tuple[float | None, ...]


@dataclass(frozen=True)
class BarSeries:
    """One bar per category, None where there is nothing to draw. `low`, `high`: its band; `published`: what others found. SI units."""

    name: str
    values: Values
    low: Values = ()
    high: Values = ()
    published: Values = ()


@dataclass(frozen=True, kw_only=True)
class Bars(Figure):
    """Bars side by side. Raises `InputError` where a series does not have one value per category."""

    unit: str
    categories: tuple[str, ...]
    series: tuple[BarSeries, ...]
    references: tuple[Reference, ...] = ()

    def __post_init__(self) -> None:
        check_lengths(self.title, self.categories, [each for series in self.series for each in columns_of(series)])

    def references_of(self) -> tuple[Reference, ...]:
        """The lines across."""
        return self.references

    def data(self) -> Data:
        """One row per category and series."""
        columns = (Column("category"), Column("series"), *(Column(name, self.unit) for name in ("value", "low", "high", "published")))
        rows: list[tuple[Cell, ...]] = []
        for at, category in enumerate(self.categories):
            for each in self.series:
                rows.append((category, each.name, *(column[at] if column else None for column in columns_of(each))))
        return Data(columns, rows)


def columns_of(series: BarSeries) -> tuple[Values, ...]:
    """Its four columns; one that was not given is empty."""
    return series.values, series.low, series.high, series.published


def check_lengths(title: str, categories: tuple[str, ...], columns: list[Values]) -> None:
    """Every column that was given has one value per category. Raises `InputError`."""
    for column in columns:
        if column and len(column) != len(categories):
            raise InputError(f"figure {title!r}", len(column), f"give one value for each of its {len(categories)} categories")
