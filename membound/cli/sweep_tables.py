"""A sweep on a terminal, and as files in a folder."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from membound.report.sweep_figure import Drawing, Line
    from membound.study.sweep.grid import Axis
    from membound.study.sweep.predicting import Point, Sweep

# Rows on a terminal; the files hold them all.
_SHOWN: Final = 40
_WIDE: Final = 120
"""Width from which rows also name energy and the next resources."""
_ROOMY: Final = 100
_NAME: Final = 11
_NEXT: Final = 3
_REASONS: Final = 5
_HEADS: Final = ("step", "tok/s GPU", "gain", "HBM", "power", "bound by", "fits")
_WIDE_HEADS: Final = ("J/token", "then")
_WORDS: Final = frozenset({"bound by", "fits", "then"})
_UNITS: Final = {"step.time": "s", "hbm.utilisation.mean": "1", "gpu.power.mean": "W"}


def table(found: Sweep) -> RenderableType:
    """A row per point: speed, what it uses, what bounds it, and what one per cent more of each would buy, as far as the terminal is wide."""
    return _Table(found)


@dataclass(frozen=True)
class _Table:
    found: Sweep

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table

        wide = options.max_width >= _WIDE
        grid = Table(
            title=_said(_title(self.found), options), title_justify="left", box=None, padding=(0, 2 if options.max_width >= _ROOMY else 1, 0, 0)
        )  # fmt: skip
        for name in names(self.found.axes).values():
            grid.add_column(_said(name, options), overflow="fold", min_width=min(len(name), _NAME))
        for head in _HEADS + (_WIDE_HEADS if wide else ()):
            grid.add_column(head, justify="left" if head in _WORDS else "right", no_wrap=True)
        for point in self.found.points[:_SHOWN]:
            grid.add_row(*(_said(cell, options) for cell in _row(self.found, point, wide)))
        yield grid
        yield from (_said(note, options) for note in _notes(self.found))


def _said(text: str, options: ConsoleOptions) -> str:
    """`text` as this terminal can show it, and never as markup."""
    from rich.markup import escape

    from membound.report.inert import inert

    plain = inert(text, 400)
    return escape(plain.replace("µ", "u").encode("ascii", "replace").decode() if options.ascii_only else plain)


def names(axes: Sequence[Axis]) -> dict[str, str]:
    """A short name of each axis by its key: the end of the key, as long as it takes to tell it from the others."""
    short = {}
    for axis in axes:
        parts, others = axis.key.split("."), [other.key for other in axes if other is not axis]
        ends = (".".join(parts[at:]) for at in range(len(parts) - 1, -1, -1))
        short[axis.key] = next(end for end in ends if not any(other == end or other.endswith(f".{end}") for other in others))
    return short


def _notes(found: Sweep) -> list[str]:
    """What the columns mean, what is not shown, and why points are not there."""
    notes = ["gain: tokens/s over the first point's; bound by: by how many per cent the step gets shorter where that gets 1 % faster"]
    left = len(found.points) - _SHOWN
    if left > 0:
        notes.append(f"{left:,} more points: --out or --json has them all")
    reasons = Counter(point.refused for point in found.points if point.refused is not None)
    return notes + [f"{count} not asked: {reason}" for reason, count in reasons.most_common(_REASONS)]


def write(found: Sweep, folder: Path) -> None:
    """sweep.parquet, sweep.csv, sweep.json, sweep.svg and sweep.png. Each is whole or absent. Raises `StorageError`."""
    import json

    import pyarrow.parquet as pq

    from membound.report import sweep_figure
    from membound.report.files import atomically
    from membound.study.sweep import table

    rows, parquet = table.table(found), io.BytesIO()
    pq.write_table(rows, parquet, compression="zstd")
    drawing = drawn(found)
    files = {
        "sweep.parquet": parquet.getvalue(),
        "sweep.csv": table.as_csv(rows),
        "sweep.json": (json.dumps(table.document(found), indent=1, allow_nan=False) + "\n").encode(),
        "sweep.svg": sweep_figure.render(drawing, "svg"),
        "sweep.png": sweep_figure.render(drawing, "png"),
    }
    for name, content in files.items():
        with atomically(folder / name) as out:
            out.write(content)


def drawn(found: Sweep) -> Drawing:
    """What the figure shows of a sweep."""
    from membound.report.sweep_figure import Drawing
    from membound.study.sweep import grid
    from membound.study.sweep.table import words

    first = found.axes[0]
    count = len(found.points) // len(first.values)
    # The first axis varies slowest: points of one line lie `count` apart.
    lines = tuple(_line(found, found.points[number::count]) for number in range(count))
    return Drawing(_title(found), first.key, tuple(map(words, first.values)), grid.numbers(first), grid.unit_of(first.key) or "", lines)


def _line(found: Sweep, points: tuple[Point, ...]) -> Line:
    from membound.report.sweep_figure import Line
    from membound.study.sweep.table import words

    short = names(found.axes)
    name = ", ".join(f"{short[axis.key]} {words(points[0].at[axis.key])}" for axis in found.axes[1:])
    rates = tuple(_number(point, "tokens.rate.useful") for point in points)
    bounds = tuple(None if point.priced is None else point.priced.bound for point in points)
    return Line(name, rates, bounds, tuple(point.fits is not None and point.fits.gpu and point.fits.host for point in points))


def _title(found: Sweep) -> str:
    over = {axis.key.split(".")[0] for axis in found.axes}
    machine = "" if any(axis.key == "machine" for axis in found.axes) else f" on {found.machine['name']}"
    model = "" if "model" in over else str(found.job["model"])
    return f"{model}{machine}".strip() or "sweep"


def _row(found: Sweep, point: Point, wide: bool) -> list[str]:
    from membound import units
    from membound.study.sweep.table import words

    at = [words(point.at[axis.key]) for axis in found.axes]
    if point.priced is None:
        return [*at, "not asked"]
    rate = _number(point, "tokens.rate.useful")
    shown = [units.show(number, unit) if (number := _number(point, name)) is not None else "" for name, unit in _UNITS.items()]
    (bound, share), *others = sorted(point.priced.sensitivity.items(), key=lambda item: -item[1])
    gain = "" if point.gain is None else f"{point.gain:+.1%}"
    cells = [*at, shown[0], f"{rate:,.0f}", gain, *shown[1:], f"{bound} {share:.2f}", _fits(point)]
    if wide:
        buys = ", ".join(f"{name} {each:.2f}" for name, each in others[:_NEXT] if each >= 0.005)
        cells += [f"{point.priced.energy_per_token.value:.3g}", buys]
    return cells


def _fits(point: Point) -> str:
    assert point.fits is not None
    missing = [name for name, fits in (("GPU", point.fits.gpu), ("host", point.fits.host)) if not fits]
    return f"no: {', '.join(missing)}" if missing else "yes"


def _number(point: Point, name: str) -> float | None:
    from membound.run.schema import Value

    value = point.priced.values[name] if point.priced is not None else None
    return value.value if isinstance(value, Value) else None
