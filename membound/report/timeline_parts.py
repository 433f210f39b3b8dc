"""The parts of a memory timeline: grid, areas, limits, phases, peak. Each draws one thing and knows nothing of the others."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from membound.report import naming
from membound.report.inert import inert, keep_tail
from membound.report.palette import COMES_AND_GOES, CONTEXT, Theme
from membound.report.spans import Span
from membound.report.timeline_data import Drawn
from membound.report.timeline_key import legend
from membound.report.timeline_layout import Layout, fitting
from membound.run.schema import Run
from membound.units import show

__all__ = ["areas", "grid", "legend", "limits", "peak", "phases", "title"]

_WORDS = {
    "load": ("loading", "load", "L"),
    "prepare": ("preparing", "prep", "P"),
    "forward": ("forward", "fwd", "F"),
    "backward": ("backward", "bwd", "B"),
    "optimizer": ("optimizer", "opt", "O"),
    "step": ("",),
}


def grid(axes: Axes, data: Drawn, theme: Theme, layout: Layout) -> None:
    """Scale and faint lines; no frame."""
    axes.set_facecolor(theme.ground)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, data.ceiling / data.scale)
    axes.yaxis.set_major_locator(MaxNLocator(6 if layout.wide else 5, steps=[1, 2, 2.5, 4, 5, 8, 10]))
    axes.tick_params(axis="y", length=0, labelsize=layout.small, labelcolor=theme.quiet, pad=6)
    axes.grid(axis="y", color=theme.faint, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    axes.figure.text(*layout.at(layout.left - 6, layout.top - 4), data.unit, ha="right", va="bottom", fontsize=layout.small, color=theme.quiet)


def areas(axes: Axes, data: Drawn, theme: Theme) -> None:
    """The stack, from the context up; then the reserved line. A hairline of ground parts what stays; spikes keep their own colour to the edge."""
    floor = np.full(len(data.x), data.outside / data.scale)
    if data.outside:
        axes.fill_between(data.x, 0, floor, color=theme.fill[CONTEXT], linewidth=0, zorder=2)
    for name, column in data.stack.items():
        roof = floor + column / data.scale
        colour, held = theme.fill[name], column > 0
        # A sample lasts until the next one: without that next one, a lone sample would have no width.
        held[1:] |= held[:-1].copy()
        axes.fill_between(data.x, floor, roof, step="post", facecolor=colour, edgecolor=colour, linewidth=0.7, zorder=2, where=held.tolist())
        if name not in COMES_AND_GOES:
            axes.plot(data.x, roof, drawstyle="steps-post", color=theme.ground, linewidth=0.5, zorder=2)
        floor = roof
    if data.reserved is not None:
        line = (data.reserved + data.outside) / data.scale
        axes.plot(data.x, line, drawstyle="steps-post", color=theme.ink, linewidth=1.3, zorder=4, solid_joinstyle="miter")


def limits(axes: Axes, data: Drawn, theme: Theme, layout: Layout) -> None:
    """The capacity as a dashed line, and what lies beyond it hatched; or words where it is off the scale."""
    if data.capacity is None:
        return
    words = f"capacity {show(data.capacity, 'B')}"
    if not data.capacity_shown:
        far, style = f"{words}, far above ↑", {"fontsize": layout.small, "color": theme.quiet, "bbox": _paper(theme)}
        axes.text(0.997, 0.985, far, style, transform=axes.transAxes, ha="right", va="top")
        return
    y = data.capacity / data.scale
    over = data.highest > data.capacity
    colour = theme.alarm if over else theme.ink
    if over:
        axes.axhspan(y, axes.get_ylim()[1], facecolor=theme.alarm, alpha=0.09, linewidth=0, zorder=1)
    axes.axhline(y, color=colour, linewidth=1.4, linestyle=(0, (5, 3)), zorder=5)
    left = data.x[data.peak] >= 0.5
    axes.annotate(
        words, (0 if left else 1, y), xytext=(3 if left else -3, 4), textcoords="offset points", ha="left" if left else "right", va="bottom",
        fontsize=layout.small, fontweight="bold", color=colour, zorder=7, parse_math=False, bbox=_paper(theme),
    )  # fmt: skip


def phases(axes: Axes, data: Drawn, theme: Theme, layout: Layout) -> None:
    """Under the plot: a strip of phases, and the steps they belong to."""
    strip, high = layout.line(layout.small) / layout.plot_height, 4 / layout.plot_height
    for index, band in enumerate(data.bands):
        start, end = data.edges[index], data.edges[index + 1]
        new = index > 0 and band.step != data.bands[index - 1].step
        if index:
            axes.axvline(start, color=theme.quiet if new else theme.faint, linewidth=1.0 if new else 0.8, zorder=3, alpha=0.9)
        face = theme.faint if index % 2 == 0 else theme.ground
        box = Rectangle((start, -high - strip), end - start, strip, facecolor=face, edgecolor=theme.faint, linewidth=0.8, clip_on=False)
        axes.add_patch(box).set_transform(axes.transAxes)
        words = _WORDS.get(band.phase, (inert(band.phase, 24),))
        word = fitting(words, layout.letters((end - start) * layout.plot_width - 4, layout.small))
        _under(axes, ((start + end) / 2, -high - strip / 2), word, layout, color=theme.ink, va="center")
    _steps(axes, data, theme, layout, -high - strip * 1.12)


def _steps(axes: Axes, data: Drawn, theme: Theme, layout: Layout, y: float) -> None:
    for first, last in _runs_of_steps(data.bands):
        start, end = data.edges[first], data.edges[last + 1]
        step = data.bands[first].step
        words = (f"step {step + 1}", f"{step + 1}") if step >= 0 else ("before the first step", "before", "")
        word = fitting(words, layout.letters((end - start) * layout.plot_width - 4, layout.small))
        _under(axes, ((start + end) / 2, y), word, layout, color=theme.quiet)
    below = y - layout.line(layout.small) * 1.05 / layout.plot_height
    _under(axes, (0.5, below), "program order, not time →", layout, color=theme.quiet, style="italic")


def _under(axes: Axes, spot: tuple[float, float], words: str, layout: Layout, color: str, va: str = "top", style: str = "normal") -> None:
    font = {"fontsize": layout.small, "color": color, "style": style, "va": va}
    axes.text(*spot, words, font, transform=axes.transAxes, ha="center", parse_math=False)


def _runs_of_steps(bands: tuple[Span, ...]) -> list[tuple[int, int]]:
    starts = [index for index, band in enumerate(bands) if index == 0 or band.step != bands[index - 1].step]
    return [(start, end - 1) for start, end in zip(starts, [*starts[1:], len(bands)], strict=True)]


def peak(axes: Axes, data: Drawn, theme: Theme, layout: Layout) -> None:
    """A ring at the allocated peak, and above it what, where and when it is."""
    x, y = float(data.x[data.peak]), (float(data.allocated[data.peak]) + data.outside) / data.scale
    right = x >= 0.5
    room = (x if right else 1 - x) * layout.plot_width - 20
    letters = layout.letters(room, layout.small)
    when, module, line, _ = naming.where(data.moment)
    lines = [keep_tail(text, letters) for text in (module, line, when) if text]
    high = layout.line(layout.text) + layout.line(layout.small) * len(lines)
    base = _words_at(axes, data, layout, y, high)
    axes.plot([x, x], [y, base], color=theme.ink, linewidth=0.9, zorder=6)
    axes.plot([x], [y], marker="o", markersize=6, markerfacecolor=theme.ground, markeredgecolor=theme.ink, markeredgewidth=1.4, zorder=8)
    side, offset = ("right", -5.0) if right else ("left", 5.0)
    common = {"xy": (x, base), "textcoords": "offset points", "ha": side, "va": "bottom", "zorder": 7, "parse_math": False, "linespacing": 1.3}
    if lines:
        axes.annotate("\n".join(lines), xytext=(offset, 0), fontsize=layout.small, color=theme.quiet, bbox=_paper(theme), **common)  # type: ignore[arg-type]
    lift = layout.line(layout.small) * len(lines) * 72 / 100
    words = f"peak {show(float(data.allocated[data.peak]), 'B', 4)} allocated"
    axes.annotate(words, xytext=(offset, lift), fontsize=layout.text, fontweight="bold", color=theme.ink, bbox=_paper(theme), **common)  # type: ignore[arg-type]


def _words_at(axes: Axes, data: Drawn, layout: Layout, y: float, high: float) -> float:
    """Where words `high` pixels tall begin: just over the peak, or over the capacity line where it would run through them."""
    per_pixel = axes.get_ylim()[1] / layout.plot_height
    base = max(y, data.highest / data.scale) + 10 * per_pixel
    if data.capacity is not None and data.capacity_shown:
        line = data.capacity / data.scale
        if base - 6 * per_pixel < line < base + (high + 6) * per_pixel:
            base = line + 6 * per_pixel
    return float(min(base, axes.get_ylim()[1] - (high + 2) * per_pixel))


def title(made: Figure, run: Run, data: Drawn, theme: Theme, layout: Layout) -> None:
    """What it is of, on what it runs, and whether it fits."""
    edge = layout.left if layout.wide else 14
    words = _verdict(run, data)
    wide = layout.wide
    what, how, on = naming.model(run), naming.technique(run), " · ".join(part for part in (naming.machine(run), naming.shape(run)) if part)
    lines = [", ".join(part for part in (what, how) if part), on] if wide else [what, how, on]
    down = 16.0
    for index, text in enumerate(lines):
        points = layout.text if index else layout.large
        room = layout.width - edge - 14 - (layout.right if wide and index == 0 else 0)
        short, colour, weight = inert(text, layout.letters(room, points)), theme.quiet if index else theme.ink, "normal" if index else "bold"
        made.text(*layout.at(edge, down), short, fontsize=points, fontweight=weight, color=colour, ha="left", va="top", parse_math=False)
        down += layout.line(points)
    colour = theme.ink if run.fits.gpu else theme.alarm
    made.text(*layout.at(layout.width - 16, 18), words, fontsize=layout.text, fontweight="bold", color=colour, ha="right", va="top")


def _verdict(run: Run, data: Drawn) -> str:
    used = run.number("gpu.memory.used.peak")
    spare = data.capacity - used if data.capacity is not None and used is not None else None
    if run.fits.gpu:
        return f"✔ fits, {show(spare, 'B')} spare" if spare is not None and spare >= 0 else "✔ fits"
    return f"✘ does not fit: {show(-spare, 'B')} too much" if spare is not None and spare < 0 else "✘ does not fit"


def _paper(theme: Theme) -> dict[str, object]:
    """Ground behind words, so that lines do not run through them."""
    return {"facecolor": theme.ground, "edgecolor": "none", "alpha": 0.9, "pad": 1.5}
