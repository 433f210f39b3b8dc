"""Lines with their names at their ends; markers and dashes differ as colours do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import Affine2D

from membound.report.charts.colours import DASHES, MARKERS
from membound.report.charts.lines import Line, Lines
from membound.report.charts.scale import Scale, say, scale
from membound.report.inert import inert
from membound.report.page import drawing
from membound.report.page.drawing import GROUND, INK, NARROW, SMALL
from membound.report.page.references import across

# Names at line ends, more than which a key reads better.
_MOST_NAMES = 8


def lines(figure: Lines, width: int, prefix: str) -> str:
    """`figure` as SVG."""
    x_largest, y_largest = _largest(figure)
    x, y = scale(x_largest, figure.x.unit), scale(y_largest, figure.y.unit)
    names = [inert(line.name, 48) for line in figure.lines]
    room = max((drawing.wide_as(name, SMALL) for name in names), default=0.0) + 30
    at_ends = width > NARROW and len(names) <= _MOST_NAMES and room < width * 0.34
    top = 0.0 if at_ends else drawing.key_height(names, 0, width)
    made = drawing.figure(width, top + (400 if width > NARROW else 340))
    at = drawing.axes(made, 52, top + 34, room if at_ends else 16, 48)
    at.set_xscale("log" if figure.log_x else "linear")
    at.set_yscale("log" if figure.log_y else "linear")
    tips = [f"{line.name}: {say(max(line.y, default=math.nan), figure.y.unit)} at most" for line in figure.lines]
    for index, line in enumerate(figure.lines):
        _line(at, line, index, x, y)
    drawing.ticks(at, "x", 7 if width > NARROW else 4)
    drawing.ticks(at, "y", 6)
    at.minorticks_off()
    drawing.name_axes(at, _named(figure.x.name, x), _named(figure.y.name, y))
    across(at, figure.x_references, figure.y_references, x, y)
    if at_ends:
        _end_names(at, figure.lines, names, x, y)
    else:
        handles: list[Patch | Line2D] = [
            Line2D([], [], label=name, **_style(line, i)) for i, (line, name) in enumerate(zip(figure.lines, names, strict=True))
        ]
        drawing.key(made, handles, 0, width)
    return drawing.finish(made, prefix, figure.title, tips)


def _named(name: str, shown: Scale) -> str:
    return f"{inert(name, 60)}, {shown.label}" if shown.label and shown.label not in name else inert(name, 60)


def _largest(figure: Lines) -> tuple[float, float]:
    xs = [abs(value) for line in figure.lines for value in line.x] + [abs(each.value) for each in figure.x_references]
    ys = [abs(value) for line in figure.lines for value in (*line.y, *line.high)] + [abs(each.value) for each in figure.y_references]
    return max(xs, default=0.0), max(ys, default=0.0)


def _line(at: Axes, line: Line, index: int, x: Scale, y: Scale) -> None:
    order = np.argsort(line.x)
    xs, ys = np.asarray(line.x, float)[order] * x.factor, np.asarray(line.y, float)[order] * y.factor
    if line.low and line.high:
        low, high = (np.asarray(column, float)[order] * y.factor for column in (line.low, line.high))
        at.fill_between(xs, low, high, color=drawing.colour(index), alpha=0.16, linewidth=0, zorder=2)
    at.plot(xs, ys, zorder=4, gid=f"tip{index}", **_style(line, index))


def _style(line: Line, index: int) -> dict[str, Any]:
    dash = DASHES[index % len(DASHES)]
    hue = drawing.colour(index)
    style: Any = "none" if line.published else (0, dash) if dash else "solid"
    face = GROUND if line.published else hue
    return {
        "color": hue, "linewidth": 2, "linestyle": style, "marker": MARKERS[index % len(MARKERS)], "markersize": 6, "markerfacecolor": face,
        "markeredgecolor": hue, "markeredgewidth": 1.5,
    }  # fmt: skip


def _end_names(at: Axes, found: tuple[Line, ...], names: list[str], x: Scale, y: Scale) -> None:
    """Each name at its line's last point, moved up or down until none covers another."""
    at.autoscale_view()
    ends = []
    for index, (line, name) in enumerate(zip(found, names, strict=True)):
        if line.x:
            last = int(np.argmax(line.x))
            ends.append((float(at.transData.transform((line.x[last] * x.factor, line.y[last] * y.factor))[1]), index, name))
    bottom, top = at.get_window_extent().extents[1::2]
    spots: list[float] = []
    style: dict[str, Any] = {"fontsize": SMALL, "color": INK, "va": "center", "parse_math": False}
    for height, index, name in sorted(ends):
        spots.append(max(height, spots[-1] + 14 if spots else bottom))
        share = (spots[-1] - bottom) / (top - bottom)
        at.annotate(name, (1, share), (22, 0), xycoords="axes fraction", textcoords="offset pixels", **style)
        # The last point may be far from its name: its marker stands before it.
        beside = at.transAxes + Affine2D().translate(12, 0)
        at.plot([1], [share], transform=beside, clip_on=False, **{**_style(found[index], index), "linestyle": "none"})
