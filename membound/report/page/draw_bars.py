"""Bars, side by side or stacked: lying, so that names read straight and fit a phone; the value stands at each bar's end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from membound.report.charts.bars import Bars
from membound.report.charts.figure import Reference
from membound.report.charts.scale import Scale, plain, say, scale
from membound.report.charts.stacked_bars import StackedBars
from membound.report.inert import inert
from membound.report.page import drawing
from membound.report.page.drawing import GROUND, INK, NARROW, QUIET, SMALL

# Pixels from bar to bar, and between the bars of one category and the next.
_BAR = 17.0
_GAP = 16.0
# Hatches tell series apart where colours do not.
_HATCHES = ("", "////", "\\\\\\\\", "xxxx", "||||", "----", "++++", "//")
_PUBLISHED = "published"
# Share of the axis that a value in words takes.
_CLOSE = 0.14


@dataclass(frozen=True)
class _Layout:
    """Pixels; y counts down from the first bar."""

    width: int
    left: float
    top: float
    bars: int
    """Bars of each category."""
    named_above: bool

    @property
    def pitch(self) -> float:
        """From category to category."""
        return self.bars * _BAR + _GAP + (15.0 if self.named_above else 0.0)


def bars(figure: Bars, width: int, prefix: str) -> str:
    """`figure` as SVG."""
    largest = _largest(figure)
    shown = scale(largest, figure.unit)
    names = [inert(series.name, 60) for series in figure.series]
    published = any(value is not None for series in figure.series for value in series.published)
    keyed = ([*names] if len(names) > 1 else []) + ([_PUBLISHED] if published else [])
    layout = _layout(figure.categories, max(len(figure.series), 1), keyed, width)
    at = _axes(layout, len(figure.categories), figure.references, shown)
    tips: list[str] = []
    for index, series in enumerate(figure.series):
        for row, value in enumerate(series.values):
            y = row * layout.pitch + index * _BAR + _BAR / 2
            if value is not None:
                tips.append(f"{figure.categories[row]}, {series.name}: {say(value, figure.unit)}")
                _bar(at, y, value * shown.factor, index, f"tip{len(tips) - 1}")
            reach = max(_band(at, y, series.low, series.high, row, shown), (value or 0) * shown.factor, 0.0)
            beside = _diamond(at, y, series.published, row, shown)
            # Past a diamond that is close; a word next to one that is far would be taken for what the diamond says.
            _words(
                at,
                beside if reach < beside < reach + _CLOSE * largest * shown.factor else reach,
                y,
                "none" if value is None else f"{plain(value * shown.factor)} {shown.label}",
            )
    _names(at, figure.categories, layout)
    handles: list[Patch | Line2D] = [_swatch(index, name) for index, name in enumerate(names)] if len(names) > 1 else []
    drawing.key(at.get_figure(), [*handles, *([_diamond_key()] if published else [])], layout.left, width)  # type: ignore[arg-type]
    return drawing.finish(at.get_figure(), prefix, figure.title, tips)  # type: ignore[arg-type]


def stacked(figure: StackedBars, width: int, prefix: str) -> str:
    """`figure` as SVG."""
    totals = [sum(part.values[row] or 0 for part in figure.parts) for row in range(len(figure.categories))]
    largest = max([*totals, *(value or 0 for value in figure.published), *(line.value for line in figure.references)], default=0)
    shown = scale(largest, figure.unit)
    # That parts of a whole make 100 % needs no words.
    whole = figure.unit == "1" and all(abs(total - 1) < 0.005 for total in totals)
    names = [inert(part.name, 60) for part in figure.parts]
    layout = _layout(figure.categories, 1, [*names, *([_PUBLISHED] if figure.published else [])], width)
    at = _axes(layout, len(figure.categories), figure.references, shown)
    tips: list[str] = []
    for row, total in enumerate(totals):
        y, base = row * layout.pitch + _BAR / 2, 0.0
        for index, part in enumerate(figure.parts):
            value = part.values[row]
            if value:
                tips.append(f"{figure.categories[row]}, {part.name}: {say(value, figure.unit)}")
                _bar(at, y, value * shown.factor, index, f"tip{len(tips) - 1}", base)
                base += value * shown.factor
        reach = max(base, _diamond(at, y, figure.published, row, shown))
        if not whole:
            _words(at, reach, y, f"{plain(total * shown.factor)} {shown.label}")
    _names(at, figure.categories, layout)
    handles: list[Patch | Line2D] = [_swatch(index, name) for index, name in enumerate(names)]
    drawing.key(at.get_figure(), [*handles, *([_diamond_key()] if figure.published else [])], layout.left, width)  # type: ignore[arg-type]
    return drawing.finish(at.get_figure(), prefix, figure.title, tips)  # type: ignore[arg-type]


def _largest(figure: Bars) -> float:
    columns = [column for series in figure.series for column in (series.values, series.high, series.published)]
    return max([abs(value) for column in columns for value in column if value is not None] + [line.value for line in figure.references], default=0)


def _layout(categories: tuple[str, ...], count: int, keyed: list[str], width: int) -> _Layout:
    longest = max((drawing.wide_as(inert(name, 60)) for name in categories), default=0.0)
    above = width <= NARROW or longest > width * 0.36
    left = 4.0 if above else longest + 14
    return _Layout(width, left, drawing.key_height(keyed, left, width), count, above)


def _axes(layout: _Layout, categories: int, references: tuple[Reference, ...], shown: Scale) -> Axes:
    lines = 18.0 if references else 0.0
    body = max(categories, 1) * layout.pitch
    made = drawing.figure(layout.width, layout.top + lines + body + 40)
    at = drawing.axes(made, layout.left, layout.top + lines + 4, 84, 36)
    at.set_ylim(body - _GAP / 2, -_GAP / 2 - (15 if layout.named_above else 0))
    at.set_yticks([])
    drawing.ticks(at, "x", 5 if layout.width > NARROW else 3)
    drawing.name_axes(at, shown.label, "")
    at.axvline(0, color=QUIET, linewidth=1)
    for line in references:
        at.axvline(line.value * shown.factor, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=4)
        words = f"{inert(line.label, 40)} {plain(line.value * shown.factor)} {shown.label}".rstrip()
        at.annotate(
            words, (line.value * shown.factor, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset pixels", fontsize=SMALL, color=INK,
            ha="left", va="bottom", parse_math=False,
        )  # fmt: skip
    return at


def _bar(at: Axes, y: float, length: float, index: int, gid: str, left: float = 0.0) -> None:
    style: dict[str, Any] = {"facecolor": drawing.colour(index), "edgecolor": GROUND, "linewidth": 0.8, "hatch": _HATCHES[index % len(_HATCHES)]}
    at.barh(y, length, _BAR - 3, left=left, zorder=3, gid=gid, **style)


def _band(at: Axes, y: float, low: tuple[float | None, ...], high: tuple[float | None, ...], row: int, shown: Scale) -> float:
    """A whisker; how far right it reaches."""
    ends = (low[row] if low else None), (high[row] if high else None)
    if ends[0] is None or ends[1] is None or ends[0] == ends[1]:
        return 0.0
    xs = [ends[0] * shown.factor, ends[1] * shown.factor]
    at.plot(xs, [y, y], color=INK, linewidth=1.2, zorder=5, marker="|", markersize=6)
    return xs[1]


def _diamond(at: Axes, y: float, values: tuple[float | None, ...], row: int, shown: Scale) -> float:
    value = values[row] if values else None
    if value is None:
        return 0.0
    at.plot([value * shown.factor], [y], zorder=6, **_diamond_style())
    return value * shown.factor


def _diamond_style() -> dict[str, Any]:
    return {"marker": "D", "markersize": 7, "markerfacecolor": GROUND, "markeredgecolor": INK, "markeredgewidth": 1.4, "linestyle": "none"}


def _diamond_key() -> Line2D:
    return Line2D([], [], label=_PUBLISHED, **_diamond_style())


def _swatch(index: int, name: str) -> Patch:
    return Patch(facecolor=drawing.colour(index), edgecolor=GROUND, linewidth=0.8, hatch=_HATCHES[index % len(_HATCHES)], label=name)


def _words(at: Axes, x: float, y: float, words: str) -> None:
    style: dict[str, Any] = {"fontsize": SMALL, "color": INK, "ha": "left", "va": "center", "parse_math": False, "zorder": 7}
    at.annotate(words, (max(x, 0), y), (10, 0), textcoords="offset pixels", **style)


def _names(at: Axes, categories: tuple[str, ...], layout: _Layout) -> None:
    for row, name in enumerate(categories):
        top = row * layout.pitch
        common: dict[str, Any] = {"fontsize": 12, "color": INK, "parse_math": False, "xycoords": ("axes fraction", "data")}
        if layout.named_above:
            text = drawing.short(name, layout.width - 20)
            at.annotate(text, (0, top - 2), (0, 0), textcoords="offset pixels", ha="left", va="bottom", **common)
        else:
            text = inert(name, 60)
            at.annotate(text, (0, top + layout.bars * _BAR / 2), (-10, 0), textcoords="offset pixels", ha="right", va="center", **common)
