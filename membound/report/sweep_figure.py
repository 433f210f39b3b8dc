"""A sweep in one figure: tokens per second over the first axis, a line for each combination of the others, each point marked by what bounds it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from membound.report.inert import inert, keep_tail
from membound.report.palette import THEMES, Theme, ThemeName
from membound.units import show

_DPI: Final = 100
# As many as can be told apart; the table has them all.
_MOST_LINES: Final = 8
_COLOURS: Final = ("weights", "logits", "gradients", "temporaries", "optimizer", "communication", "workspace", "activations")

BOUNDS: Final = {
    "compute": ("o", "compute"), "hbm": ("s", "HBM"), "fixed": ("P", "kernels' starts"), "launch": ("^", "launching"), "nvlink": ("D", "NVLink"),
    "network": ("v", "network"), "pcie": ("X", "PCIe"), "ddr": ("p", "host DDR"), "host_compute": ("h", "host cores"), "nvme": ("*", "NVMe"),
}  # fmt: skip
"""Marker and name of each resource that a step may hang on."""


@dataclass(frozen=True)
class Line:
    """One combination of the other axes' values: a point per value of the first axis, None where a point is refused."""

    name: str
    y: tuple[float | None, ...]
    """Tokens per second and GPU, padding left out."""
    bound: tuple[str | None, ...]
    fits: tuple[bool, ...]


@dataclass(frozen=True)
class Drawing:
    """All that is drawn. `x` are the first axis's values in the SI `unit`, or None where they are names."""

    title: str
    axis: str
    words: tuple[str, ...]
    x: tuple[float, ...] | None
    unit: str
    lines: tuple[Line, ...]


def figure(drawing: Drawing, theme: ThemeName = "light") -> Figure:
    """The figure, 1000 by 560 pixels."""
    colours = THEMES[theme]
    made = Figure(figsize=(10, 5.6), dpi=_DPI, facecolor=colours.ground)
    FigureCanvasAgg(made)
    axes = made.add_axes((0.08, 0.13, 0.64, 0.73))
    _frame(axes, drawing, colours)
    places = drawing.x if drawing.x is not None else tuple(float(number) for number in range(len(drawing.words)))
    for line, name in zip(drawing.lines[:_MOST_LINES], _COLOURS, strict=False):
        _line(axes, line, places, colours.fill[name], colours)
    axes.set_ylim(bottom=0)
    _legend(made, drawing, colours)
    made.text(0.08, 0.93, inert(drawing.title), fontsize=13, color=colours.ink, weight="bold")
    made.text(0.08, 0.885, "tokens per second on each GPU, padding left out; predicted", fontsize=9.5, color=colours.quiet)
    return made


def render(drawing: Drawing, kind: Literal["png", "svg"] = "svg", theme: ThemeName = "light") -> bytes:
    """The figure as a file's bytes; the same drawing gives the same bytes."""
    made, out = figure(drawing, theme), io.BytesIO()
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "membound", "font.family": ["DejaVu Sans"]}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        made.savefig(out, format=kind, dpi=_DPI * (2 if kind == "png" else 1), metadata={"Date": None} if kind == "svg" else {"Software": None})
    return out.getvalue()


def _frame(axes: Axes, drawing: Drawing, theme: Theme) -> None:
    axes.set_facecolor(theme.ground)
    axes.grid(axis="y", color=theme.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, labelcolor=theme.quiet)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel(inert(drawing.axis), fontsize=9.5, color=theme.quiet)
    if drawing.x is None:
        axes.set_xticks(range(len(drawing.words)), [keep_tail(inert(word), 24) for word in drawing.words])
        axes.set_xlim(-0.4, len(drawing.words) - 0.6)
    elif len(drawing.x) <= 8:
        axes.set_xticks(drawing.x, [inert(word) for word in drawing.words])
    else:
        axes.xaxis.set_major_formatter(lambda value, _: show(value, drawing.unit) if drawing.unit else f"{value:g}")


def _line(axes: Axes, line: Line, places: Sequence[float], colour: str, theme: Theme) -> None:
    """Points in order of x, joined; hollow where the point does not fit."""
    there = sorted((x, y, bound, fits) for x, y, bound, fits in zip(places, line.y, line.bound, line.fits, strict=True) if y is not None and bound)
    axes.plot([x for x, *_ in there], [y for _, y, *_ in there], color=colour, linewidth=1.6, zorder=2)
    for x, y, bound, fits in there:
        marker, _ = BOUNDS[bound]
        axes.plot([x], [y], marker=marker, markersize=7, color=colour, markerfacecolor=colour if fits else theme.ground, linestyle="none", zorder=3)


def _legend(made: Figure, drawing: Drawing, theme: Theme) -> None:
    """Lines by colour, then what bounds by marker, then what a hollow marker says."""
    shown = drawing.lines[:_MOST_LINES]
    keys = []
    if len(drawing.lines) > 1:
        keys += [
            Line2D([], [], color=theme.fill[name], linewidth=2, label=keep_tail(inert(line.name), 34))
            for line, name in zip(shown, _COLOURS, strict=False)
        ]
    if len(drawing.lines) > len(shown):
        keys.append(Line2D([], [], linestyle="none", label=f"{len(drawing.lines) - len(shown)} more in the table"))
    met = {bound for line in shown for bound in line.bound if bound}
    keys += [
        Line2D([], [], color=theme.quiet, marker=marker, linestyle="none", label=f"bound by {name}")
        for key, (marker, name) in BOUNDS.items()
        if key in met
    ]
    if any(y is not None and not fits for line in shown for y, fits in zip(line.y, line.fits, strict=True)):
        keys.append(Line2D([], [], color=theme.quiet, marker="o", markerfacecolor=theme.ground, linestyle="none", label="does not fit"))
    made.legend(handles=keys, loc="upper left", bbox_to_anchor=(0.735, 0.88), frameon=False, fontsize=9, labelcolor=theme.ink)
