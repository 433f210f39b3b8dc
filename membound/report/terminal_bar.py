"""A GPU's memory as one bar against its capacity, stacked by category; labelled where there is room, lettered where there is no colour."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from membound.report.palette import CONTEXT, LABEL, LETTER, STACK, THEMES, UNUSED
from membound.report.terminal_face import Face, size
from membound.run.schema import Run

_FILL = THEMES["dark"].fill
_DARK_INK = "#10151b"


@dataclass(frozen=True)
class Segment:
    """A share of the bar, in bytes."""

    name: str
    nbytes: float


def segments(run: Run) -> list[Segment]:
    """What the driver shows as used, from the bottom: context, the categories at the allocated peak, then what is reserved beyond it."""
    outside = sum(run.number(f"gpu.memory.{name}") or 0 for name in ("context", "libraries"))
    found = [Segment(CONTEXT, outside)]
    found += [Segment(name, run.number(f"gpu.memory.{name}") or 0) for name in STACK]
    reserved, allocated = run.number("gpu.memory.reserved.peak"), run.number("gpu.memory.allocated.peak")
    if reserved is not None and allocated is not None:
        found.append(Segment(UNUSED, reserved - allocated))
    return [segment for segment in found if segment.nbytes > 0]


def bar(run: Run, face: Face, capacity: float | None) -> list[Text]:
    """The bar and, under it, its scale. Empty where nothing is known."""
    parts = segments(run)
    used = sum(part.nbytes for part in parts)
    if not parts:
        return []
    whole = max(used, capacity or 0)
    edges = [0]
    for index in range(len(parts)):
        edges.append(round(sum(part.nbytes for part in parts[: index + 1]) / whole * face.width))
    widths = [(part, edges[at + 1] - edges[at]) for at, part in enumerate(parts)]
    rows = [_row(widths, face, labels) for labels in ([True, False] if face.colour else [True])]
    needed = run.number("gpu.memory.used.peak")
    return [*rows, _scale(face, used, capacity, used if needed is None else needed)]


def swatch(name: str, face: Face) -> Text:
    """The key of a category in a table."""
    if face.colour:
        return Text("##" if face.ascii else "██", style=_FILL[name])
    return Text(LETTER[name] * 2)


def _row(widths: list[tuple[Segment, int]], face: Face, labels: bool) -> Text:
    row = Text(no_wrap=True, overflow="crop")
    for part, width in widths:
        if face.colour:
            text = _label(part, width) if labels else _amount(part, width)
            row.append(f" {text}"[:width].ljust(width), style=f"{_DARK_INK} on {_FILL[part.name]}")
        else:
            row.append(LETTER[part.name] * width)
    row.append(("." if face.ascii else "░") * (face.width - len(row.plain)), style="dim")
    return row


def _label(part: Segment, width: int) -> str:
    name = LABEL[part.name]
    return next((text for text in (name, name.split(",")[0], name.split()[0]) if len(text) + 2 <= width), "")


def _amount(part: Segment, width: int) -> str:
    text = size(part.nbytes)
    return text if len(text) + 2 <= width else ""


def _scale(face: Face, used: float, capacity: float | None, needed: float) -> Text:
    """A line under the bar: where the capacity ends, where the need ends, and a red rule along what is too much."""
    marks = [(used, f"needs {size(needed)}", "dim")]
    if capacity is not None:
        marks.append((capacity, f"capacity {size(capacity)}", "bold"))
    whole = max(used, capacity or 0)
    found = Text(" " * face.width, no_wrap=True, overflow="crop")
    taken: list[range] = []
    for at, words, style in sorted(marks, key=lambda mark: -mark[0]):
        cell = min(max(round(at / whole * face.width) - 1, 0), face.width - 1)
        text, start = _pointer(words, cell, "^" if face.ascii else "▲")
        spot = range(start, start + len(text))
        if spot.stop <= face.width and all(spot.stop < other.start or spot.start > other.stop for other in taken):
            found = Text.assemble(found[: spot.start], (text, style), found[spot.stop :], no_wrap=True, overflow="crop")
            taken.append(spot)
    if capacity is not None and used > capacity and len(taken) > 1:
        excess = range(taken[1].stop + 1, taken[0].start - 1)
        rule = ("=" if face.ascii else "━") * len(excess)
        found = Text.assemble(found[: excess.start], (rule, "red"), found[excess.start + len(rule) :], no_wrap=True, overflow="crop")
    return found


def _pointer(words: str, cell: int, arrow: str) -> tuple[str, int]:
    """Words that point at `cell` from the left, or from the right where the left has no room; and where they start."""
    start = cell - len(words) - 1
    return (f"{words} {arrow}", start) if start >= 0 else (f"{arrow} {words}", cell)
