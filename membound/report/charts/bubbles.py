"""Bubbles: two quantities against each other, a third as the area."""

from __future__ import annotations

from dataclasses import dataclass

from membound.report.charts.data import Column, Data
from membound.report.charts.figure import Figure, Reference


@dataclass(frozen=True)
class Axis:
    """What an axis, or the area of bubbles, means. `unit` is SI."""

    name: str
    unit: str


@dataclass(frozen=True)
class Bubble:
    """One thing. Bubbles of one `family` share a colour; `published` ones are drawn hollow. Values in the axes' SI units."""

    name: str
    x: float
    y: float
    size: float
    family: str = ""
    published: bool = False


@dataclass(frozen=True, kw_only=True)
class Bubbles(Figure):
    """Bubbles over `x` and `y` whose area is `size`."""

    x: Axis
    y: Axis
    size: Axis
    bubbles: tuple[Bubble, ...]
    x_references: tuple[Reference, ...] = ()
    y_references: tuple[Reference, ...] = ()

    def references_of(self) -> tuple[Reference, ...]:
        """Those of both axes."""
        return self.x_references + self.y_references

    def data(self) -> Data:
        """One row per bubble."""
        columns = (Column("name"), Column("family"), *(Column(axis.name, axis.unit) for axis in (self.x, self.y, self.size)), Column("published"))
        rows = [(each.name, each.family, each.x, each.y, each.size, "yes" if each.published else "no") for each in self.bubbles]
        return Data(columns, rows)
