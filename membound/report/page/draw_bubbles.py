"""Bubbles with their names beside them, each where it covers least."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from membound.report.charts.bubbles import Bubble, Bubbles
from membound.report.charts.scale import Scale, say, scale
from membound.report.inert import inert
from membound.report.page import drawing
from membound.report.page.drawing import GROUND, INK, NARROW, QUIET, SMALL
from membound.report.page.references import across

_Box = tuple[float, float, float, float]


def bubbles(figure: Bubbles, width: int, prefix: str) -> str:
    """`figure` as SVG."""
    shown = [scale(max((abs(value) for value in column), default=0), axis.unit) for column, axis in zip(_columns(figure), _axes(figure), strict=True)]
    families = list(dict.fromkeys(each.family for each in figure.bubbles))
    keyed = [inert(family, 50) for family in families if family] + (["published"] if any(each.published for each in figure.bubbles) else [])
    top = drawing.key_height(keyed, 0, width)
    made = drawing.figure(width, top + (430 if width > NARROW else 380))
    at = drawing.axes(made, 46, top + 34, 16, 48)
    _limits(at, figure, shown[0], shown[1])
    drawing.ticks(at, "x", 6 if width > NARROW else 4)
    drawing.ticks(at, "y", 6)
    drawing.name_axes(at, f"{figure.x.name}, {shown[0].label}", f"{figure.y.name}, {shown[1].label}; area: {figure.size.name}")
    across(at, figure.x_references, figure.y_references, shown[0], shown[1])
    most = 34.0 if width > NARROW else 20.0
    largest = max((each.size for each in figure.bubbles), default=1.0) or 1.0
    placed = [(each, _radius(each.size, largest, most)) for each in figure.bubbles]
    # The large ones first, so that none hides another.
    for index, (each, radius) in enumerate(sorted(placed, key=lambda pair: -pair[1])):
        _bubble(at, each, radius, families.index(each.family), shown, f"tip{index}")
    _labels(at, placed, shown)
    handles: list[Patch | Line2D] = [Patch(facecolor=drawing.colour(i), label=inert(name, 50), alpha=0.75) for i, name in enumerate(families) if name]
    if "published" in keyed:
        handles.append(Line2D([], [], marker="o", linestyle="none", markerfacecolor="none", markeredgecolor=INK, markersize=9, label="published"))
    drawing.key(made, handles, 0, width)
    tips = [_tip(each, figure) for each, _ in sorted(placed, key=lambda pair: -pair[1])]
    return drawing.finish(made, prefix, figure.title, tips)


def _columns(figure: Bubbles) -> tuple[list[float], ...]:
    xs = [each.x for each in figure.bubbles] + [line.value for line in figure.x_references]
    ys = [each.y for each in figure.bubbles] + [line.value for line in figure.y_references]
    return xs, ys, [each.size for each in figure.bubbles]


def _axes(figure: Bubbles) -> tuple[Any, ...]:
    return figure.x, figure.y, figure.size


def _limits(at: Axes, figure: Bubbles, x: Scale, y: Scale) -> None:
    """Room around the outermost bubbles for their areas and names."""
    setters: tuple[Callable[[float, float], object], ...] = (at.set_xlim, at.set_ylim)
    for values, shown, set_limits in zip(_columns(figure)[:2], (x, y), setters, strict=True):
        low, high = (min(values, default=0) * shown.factor, max(values, default=1) * shown.factor)
        room = (high - low) * 0.16 or abs(high) * 0.2 or 1.0
        set_limits(low - room, high + room)


def _radius(size: float, largest: float, most: float) -> float:
    return max(most * math.sqrt(max(size, 0.0) / largest), 3.0)


def _bubble(at: Axes, each: Bubble, radius: float, family: int, shown: list[Scale], gid: str) -> None:
    # The area of a marker is told in square points, by its diameter.
    area = (2 * radius) ** 2
    face, edge = ("none", drawing.colour(family)) if each.published else (drawing.colour(family), GROUND)
    alpha = None if each.published else 0.75
    x, y = each.x * shown[0].factor, each.y * shown[1].factor
    at.scatter([x], [y], s=area, facecolor=face, edgecolor=edge, alpha=alpha, linewidth=1.8 if each.published else 1.0, zorder=4, gid=gid)


def _labels(at: Axes, placed: list[tuple[Bubble, float]], shown: list[Scale]) -> None:
    """Names, each at that side of its bubble where it covers the least of names and bubbles."""
    spots = [at.transData.transform((each.x * shown[0].factor, each.y * shown[1].factor)) for each, _ in placed]
    taken: list[_Box] = [(x - r * 0.8, y - r * 0.8, x + r * 0.8, y + r * 0.8) for (x, y), (_, r) in zip(spots, placed, strict=True)]
    frame = at.get_window_extent().extents
    for (x, y), (each, radius) in zip(spots, placed, strict=True):
        text = inert(each.name, 40)
        width = drawing.wide_as(text, SMALL)
        choices = [choice for gap in (4, 16, 30) for choice in _choices(x, y, radius + gap, width)]
        # What is far away covers less, but is harder to tell whose it is: the first, the nearest, wins ties.
        box, ha, va, dx, dy = min(choices, key=lambda choice: _cost(choice[0], taken, frame) + 3 * max(abs(choice[3]), abs(choice[4])))
        taken.append(box)
        place: dict[str, Any] = {"xycoords": "data", "textcoords": "offset pixels", "ha": ha, "va": va}
        spot = (each.x * shown[0].factor, each.y * shown[1].factor)
        colour = QUIET if each.published else INK
        at.annotate(text, spot, (dx, dy), fontsize=SMALL, color=colour, zorder=6, parse_math=False, **place)


def _choices(x: float, y: float, radius: float, width: float) -> list[tuple[_Box, str, str, float, float]]:
    r, high = radius, 14.0
    return [
        ((x + r, y - high / 2, x + r + width, y + high / 2), "left", "center", r, 0.0),
        ((x - r - width, y - high / 2, x - r, y + high / 2), "right", "center", -r, 0.0),
        ((x - width / 2, y + r, x + width / 2, y + r + high), "center", "bottom", 0.0, r),
        ((x - width / 2, y - r - high, x + width / 2, y - r), "center", "top", 0.0, -r),
        ((x + r * 0.7, y + r * 0.7, x + r * 0.7 + width, y + r * 0.7 + high), "left", "bottom", r * 0.7, r * 0.7),
        ((x + r * 0.7, y - r * 0.7 - high, x + r * 0.7 + width, y - r * 0.7), "left", "top", r * 0.7, -r * 0.7),
    ]


def _cost(box: _Box, taken: list[_Box], frame: Any) -> float:
    """Area that a name would cover of others; beyond the frame counts more."""
    left, low, right, high = box
    covered = sum(max(min(right, b[2]) - max(left, b[0]), 0) * max(min(high, b[3]) - max(low, b[1]), 0) for b in taken)
    outside = max(frame[0] - left, 0) + max(right - frame[2], 0) + max(frame[1] - low, 0) + max(high - frame[3], 0)
    return float(covered + outside * 100)


def _tip(each: Bubble, figure: Bubbles) -> str:
    parts = [f"{axis.name} {say(value, axis.unit)}" for axis, value in ((figure.x, each.x), (figure.y, each.y), (figure.size, each.size))]
    return f"{each.name}{' (published)' if each.published else ''}: {', '.join(parts)}"
