"""Published values as dashed lines across a static drawing, with their names."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from membound.report.charts.figure import Reference
from membound.report.charts.scale import Scale, plain
from membound.report.inert import inert
from membound.report.page.drawing import INK, SMALL

_STYLE: dict[str, Any] = {"color": INK, "linewidth": 1.1, "linestyle": (0, (4, 3)), "zorder": 2}


def across(at: Axes, xs: tuple[Reference, ...], ys: tuple[Reference, ...], x: Scale, y: Scale) -> None:
    """Lines at x and at y."""
    words: dict[str, Any] = {"textcoords": "offset pixels", "fontsize": SMALL, "color": INK, "parse_math": False}
    for line in xs:
        at.axvline(line.value * x.factor, **_STYLE)
        at.annotate(_words(line, x), (line.value * x.factor, 1), (4, -2), xycoords=("data", "axes fraction"), ha="left", va="top", **words)
    for line in ys:
        at.axhline(line.value * y.factor, **_STYLE)
        at.annotate(_words(line, y), (1, line.value * y.factor), (-2, 3), xycoords=("axes fraction", "data"), ha="right", va="bottom", **words)


def _words(line: Reference, shown: Scale) -> str:
    return f"{inert(line.label, 40)} {plain(line.value * shown.factor)} {shown.label}".rstrip()
