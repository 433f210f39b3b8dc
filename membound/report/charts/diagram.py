"""A diagram: a drawing made elsewhere, as SVG."""

from __future__ import annotations

from dataclasses import dataclass

from membound.report.charts.data import Data
from membound.report.charts.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Diagram(Figure):
    """A drawing as SVG text, 760 pixels wide at best; `narrow`, 360 wide, takes its place on a phone.

    Whatever in it is not drawing (scripts, links, foreign objects) is left out. `currentColor`, `var(--ink)`, `var(--c0)` ... follow the theme.
    """

    svg: str
    narrow: str = ""

    def data(self) -> Data | None:
        """None: the drawing is all there is."""
        return None
