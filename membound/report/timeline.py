"""The memory timeline: a GPU's memory over the program, stacked by category, against its capacity. PNG or SVG, light or dark."""

from __future__ import annotations

import io
import warnings
from typing import Any, Literal

import matplotlib as mpl
import pyarrow as pa
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from membound.errors import RecordError
from membound.report import timeline_parts as parts
from membound.report.palette import THEMES, ThemeName
from membound.report.timeline_data import drawn
from membound.report.timeline_key import entries
from membound.report.timeline_layout import Layout
from membound.run.schema import Run

TABLE = "memory.timeline"
# Pixels per inch of a figure at scale 1.
_DPI = 100


def has_timeline(run: Run) -> bool:
    """Whether `run` holds a timeline that can be drawn."""
    table = run.tables.get(TABLE)
    return table is not None and table.num_rows > 0


def figure(run: Run, theme: ThemeName = "light", width: int = 1200) -> Figure:
    """The figure, `width` pixels wide. Raises `RecordError` where the Run holds no timeline."""
    if not has_timeline(run):
        raise RecordError(f"this run holds no {TABLE} table: nothing to draw")
    data, colours = drawn(run, _table(run), width), THEMES[theme]
    layout = Layout.of(width, entries(data))
    made = Figure(figsize=(layout.width / _DPI, layout.height / _DPI), dpi=_DPI, facecolor=colours.ground)
    FigureCanvasAgg(made)
    axes = made.add_axes(layout.axes)
    parts.grid(axes, data, colours, layout)
    parts.areas(axes, data, colours)
    parts.limits(axes, data, colours, layout)
    parts.phases(axes, data, colours, layout)
    parts.peak(axes, data, colours, layout)
    parts.title(made, run, data, colours, layout)
    parts.legend(made, data, colours, layout)
    return made


def render(run: Run, kind: Literal["png", "svg"] = "png", theme: ThemeName = "light", width: int = 1200, scale: float = 1) -> bytes:
    """The figure as a file's bytes; the same Run gives the same bytes. A PNG has `scale` pixels per pixel of `width`."""
    made, out = figure(run, theme, width), io.BytesIO()
    # Text stays text in SVG: smaller, and it can be searched and copied.
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "membound", "font.family": ["DejaVu Sans"]}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        made.savefig(out, format=kind, dpi=_DPI * (scale if kind == "png" else 1), metadata={"Date": None} if kind == "svg" else {"Software": None})
    return out.getvalue()


def _table(run: Run) -> pa.Table:
    table = run.tables[TABLE]
    needed = {"instruction", "phase", "step", "micro", "allocated"}
    if not needed <= set(table.column_names):
        raise RecordError(f"{TABLE} lacks {', '.join(sorted(needed - set(table.column_names)))}")
    return table
