"""The key of a memory timeline: what each colour is, with its bytes at the peak, in the order of the stack."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from membound.report.palette import CONTEXT, LABEL, Theme
from membound.report.timeline_data import Drawn
from membound.report.timeline_layout import KEY_TOP, Layout
from membound.units import show


@dataclass(frozen=True)
class _Entry:
    label: str
    amount: str
    colour: str
    mark: str  # 'area', 'line', 'dashes' or 'none'


def legend(made: Figure, data: Drawn, theme: Theme, layout: Layout) -> None:
    """The key: beside the plot, or under it in two columns."""
    stacked, lines = _stacked(data, theme), _lines(data, theme)
    if layout.wide:
        _beside(made, stacked, lines, theme, layout)
    else:
        _under(made, [*stacked, *lines], theme, layout)


def entries(data: Drawn) -> int:
    """How many entries the key has."""
    return len(data.stack) + (data.outside > 0) + (data.reserved is not None) + (data.rows is not None) + (data.capacity is not None)


def _stacked(data: Drawn, theme: Theme) -> list[_Entry]:
    found = [_Entry(LABEL[name], _held(float(column[data.peak])), theme.fill[name], "area") for name, column in reversed(data.stack.items())]
    if data.outside:
        found.append(_Entry(LABEL[CONTEXT], show(data.outside, "B"), theme.fill[CONTEXT], "area"))
    return found


def _held(nbytes: float) -> str:
    return show(nbytes, "B") if nbytes else "none"


def _lines(data: Drawn, theme: Theme) -> list[_Entry]:
    found = []
    if data.reserved is not None:
        name = "reserved, context" if data.outside else "reserved"
        found.append(_Entry(name, show(float(data.reserved.max()) + data.outside, "B"), theme.ink, "line"))
    if data.rows is not None:
        found.append(_Entry("as rows differ", show(data.rows, "B"), theme.ink, "none"))
    if data.capacity is not None:
        over = data.highest > data.capacity
        found.append(_Entry("capacity", show(data.capacity, "B"), theme.alarm if over else theme.ink, "dashes"))
    return found


def _beside(made: Figure, stacked: list[_Entry], lines: list[_Entry], theme: Theme, layout: Layout) -> None:
    left, right = layout.width - layout.right + 26, layout.width - 18
    step = layout.line(layout.text) * 1.12
    down = layout.top + 6.0
    for heading, entries in (("at the peak", stacked), ("highest", lines)):
        made.text(*layout.at(left, down), heading, fontsize=layout.small, color=theme.quiet, ha="left", va="center", style="italic")
        down += step
        for entry in entries:
            _entry(made, entry, theme, layout, (left, right, down))
            down += step
        down += step * 0.5


def _under(made: Figure, entries: list[_Entry], theme: Theme, layout: Layout) -> None:
    step = layout.line(layout.small) * 1.12
    top = layout.height - layout.bottom + float(KEY_TOP)
    rows = -(-len(entries) // 2)
    middle = layout.width / 2
    for index, entry in enumerate(entries):
        column, row = divmod(index, rows)
        left, right = (16.0, middle - 12) if column == 0 else (middle + 12, layout.width - 16.0)
        _entry(made, entry, theme, layout, (left, right, top + row * step))


def _entry(made: Figure, entry: _Entry, theme: Theme, layout: Layout, spot: tuple[float, float, float]) -> None:
    left, right, down = spot
    points = layout.text if layout.wide else layout.small
    side = points * 1.15
    if entry.mark == "area":
        x, y = layout.at(left, down + side / 2)
        made.add_artist(Rectangle((x, y), side / layout.width, side / layout.height, facecolor=entry.colour, edgecolor="none"))
    elif entry.mark != "none":
        xs, ys = zip(layout.at(left, down), layout.at(left + side, down), strict=True)
        line = Line2D(xs, ys, color=entry.colour, linewidth=1.6)
        if entry.mark == "dashes":
            line.set_linestyle((0, (2.2, 1.4)))
        made.add_artist(line)
    made.text(*layout.at(left + side + 8, down), entry.label, fontsize=points, color=theme.ink, ha="left", va="center")
    made.text(*layout.at(right, down), entry.amount, fontsize=points, color=theme.ink, ha="right", va="center")
