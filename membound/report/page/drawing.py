"""What all static drawings share: matplotlib set in pixels, colours that follow the page's theme, tooltips, and the way out as SVG."""

from __future__ import annotations

import io
import math
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from membound.report.charts.colours import OKABE_ITO
from membound.report.charts.scale import plain
from membound.report.inert import inert
from membound.report.page.svg import clean

# Widths in CSS pixels that figures are drawn for: a column of text, and a phone.
WIDE: Final = 760
NARROW: Final = 350
TEXT: Final = 12.0
SMALL: Final = 11.0
# A letter's mean width over its height, for DejaVu Sans, which is wider than what most pages are shown in.
_LETTER: Final = 0.6
# One user unit of matplotlib's SVG is a point: at 72 points an inch, a pixel.
_DPI: Final = 72

# Colours that stand for the page's variables while matplotlib draws: no figure has them by chance.
INK, QUIET, FAINT, GROUND = "#0101f0", "#0101f1", "#0101f2", "#0101f3"
_VARIABLES: Final = {INK: "--ink", QUIET: "--quiet", FAINT: "--faint", GROUND: "--ground"}
_RAISED: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_TOKEN: Final = re.compile(r"#0101([0-9a-f]{2})")


def colour(index: int) -> str:
    """The token of the page's colour number `index`, counted around."""
    return f"#0101{index % len(OKABE_ITO):02x}"


def figure(width: int, height: float) -> Figure:
    """An empty figure of so many pixels."""
    made = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="none")
    FigureCanvasSVG(made)
    return made


def axes(made: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Axes with so many pixels around them, without a frame."""
    width, height = made.get_figwidth() * _DPI, made.get_figheight() * _DPI
    found = made.add_axes((left / width, bottom / height, max(width - left - right, 1) / width, max(height - top - bottom, 1) / height))
    found.set_facecolor("none")
    for side in found.spines.values():
        side.set_visible(False)
    found.tick_params(length=0, labelsize=SMALL, labelcolor=QUIET, pad=5)
    found.set_axisbelow(True)
    return found


def ticks(at: Axes, which: str, count: int) -> None:
    """Round ticks on axis 'x' or 'y', with a faint grid."""
    axis = at.xaxis if which == "x" else at.yaxis
    if (at.get_xscale() if which == "x" else at.get_yscale()) == "linear":
        axis.set_major_locator(MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]))
    else:
        low, high = sorted(axis.get_view_interval())
        # Over less than two decades, powers of ten alone would be one tick or none.
        few = low > 0 and math.log10(high / low) < 2
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    at.grid(axis="x" if which == "x" else "y", color=FAINT, linewidth=1)


def _tick(value: float) -> str:
    """A number; from a hundred thousand on, one of a single digit as a power of ten."""
    power = math.floor(math.log10(value) + 1e-9) if value >= 1e5 else 0
    digit = value / 10.0**power
    if power and math.isclose(digit, round(digit), rel_tol=1e-9):
        return ("" if round(digit) == 1 else f"{digit:.0f}·") + "10" + str(power).translate(_RAISED)
    text = plain(value, 4 if value and abs(value) < 10 else 3)
    text = text.rstrip("0").rstrip(".") if "." in text else text
    # A year is no thousands.
    return text.replace(",", "") if abs(value) < 10_000 else text


def name_axes(at: Axes, x: str, y: str) -> None:
    """What the axes mean: x at the lower right, y over its axis, so that nothing is read sideways."""
    common = {"fontsize": SMALL, "color": QUIET, "parse_math": False}
    at.annotate(inert(x, 120), (1, 0), (0, -20), xycoords="axes fraction", textcoords="offset pixels", ha="right", va="top", **common)  # type: ignore[arg-type]
    at.annotate(inert(y, 120), (0, 1), (-4, 8), xycoords="axes fraction", textcoords="offset pixels", ha="left", va="bottom", **common)  # type: ignore[arg-type]


def key(made: Figure, handles: Sequence[Patch | Line2D], left: float, width: int) -> None:
    """A key at the top left, in as many columns as there is room for."""
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    columns = max(int((width - left) // (longest * TEXT * _LETTER + 46)), 1)
    found = made.legend(
        handles=list(handles), loc="upper left", bbox_to_anchor=(left / width, 1.0), ncol=columns, frameon=False, fontsize=SMALL,
        labelcolor=INK, handlelength=1.8, handletextpad=0.6, columnspacing=1.6, borderaxespad=0, borderpad=0,
    )  # fmt: skip
    for text in found.get_texts():
        text.set_parse_math(False)


def key_height(names: Sequence[str], left: float, width: int) -> float:
    """Pixels that the key of these names takes."""
    if not names:
        return 0.0
    columns = max(int((width - left) // (max(len(name) for name in names) * TEXT * _LETTER + 46)), 1)
    return -(-len(names) // columns) * 18.0 + 8.0


def letters(pixels: float, size: float = TEXT) -> int:
    """Letters that fit."""
    return max(int(pixels / (size * _LETTER)), 4)


def wide_as(text: str, size: float = TEXT) -> float:
    """Pixels that `text` takes."""
    return len(text) * size * _LETTER


def short(text: str, pixels: float, size: float = TEXT) -> str:
    """`text` cut to so many pixels."""
    return inert(text, letters(pixels, size))


def finish(made: Figure, prefix: str, title: str, tips: Sequence[str] = ()) -> str:
    """The figure as clean SVG; `tips` are shown by artists whose gid is 'tip0', 'tip1', ..."""
    out = io.BytesIO()
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "membound", "font.family": ["DejaVu Sans"], "hatch.linewidth": 0.9}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A name in a script that the font lacks is measured as boxes, and shown by the reader's own fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        made.savefig(out, format="svg", dpi=_DPI, transparent=True, metadata={"Date": None, "Creator": None})
    return clean(_TOKEN.sub(_variable, _with_tips(out.getvalue().decode(), tips)), prefix, title)


def _variable(match: re.Match[str]) -> str:
    return f"var({_VARIABLES.get(match[0], f'--c{int(match[1], 16)}')})"


def _with_tips(text: str, tips: Sequence[str]) -> str:
    if not tips:
        return text
    root = ElementTree.fromstring(text)
    named = {element.get("id"): element for element in root.iter() if element.get("id")}
    for index, tip in enumerate(tips):
        element = named.get(f"tip{index}")
        if element is not None:
            title = ElementTree.Element("{http://www.w3.org/2000/svg}title")
            title.text = inert(tip)
            element.insert(0, title)
    return ElementTree.tostring(root, encoding="unicode")
