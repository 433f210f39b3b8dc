"""A figure over time as the page's scripts read it: what to draw, and which blocks of samples hold it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from membound.report.charts.colours import OKABE_ITO
from membound.report.charts.data import text_cell
from membound.report.charts.scale import Scale, say, scale
from membound.report.charts.time_series import Series, TimeSeries
from membound.report.inert import inert
from membound.report.page.budget import Packed, pack_all
from membound.report.page.embed import json_text
from membound.report.page.packing import pack_text

# Spans that a page holds at most; what is finest goes first.
_MOST_MARKS: Final = 12_000
# Units whose zero tells nothing: their axes begin near the curves.
_FROM_ANYWHERE: Final = frozenset({"degC", "Hz"})
_KINDS: Final = ("step", "mark", "phase", "micro-step")


@dataclass
class Blocks:
    """The packed texts of a page, by the id of the element that holds each."""

    texts: dict[str, str] = field(default_factory=dict)
    _marks: dict[int, str] = field(default_factory=dict)

    def add(self, text: str) -> str:
        """Hold `text`; its id."""
        name = f"block-{len(self.texts)}"
        self.texts[name] = text
        return name

    def add_marks(self, table: pa.Table) -> str:
        """Hold the spans of `table` once, however many figures draw them; their id."""
        if id(table) not in self._marks:
            self._marks[id(table)] = self.add(pack_text(json_text(_marks(table))))
        return self._marks[id(table)]


@dataclass(frozen=True)
class Moving:
    """A figure over time, packed: the document that its script reads, and in words how finely each curve is kept."""

    document: dict[str, Any]
    kept: tuple[str, ...]


def moving(figures: Sequence[TimeSeries], blocks: Blocks, room: int) -> list[Moving]:
    """Every figure packed; the samples go into `blocks`, in about `room` characters."""
    packed = iter(pack_all([series.values for figure in figures for series in figure.series], room))
    return [_moving(figure, [next(packed) for _ in figure.series], blocks) for figure in figures]


def _moving(figure: TimeSeries, packed: Sequence[Packed], blocks: Blocks) -> Moving:
    return Moving(_document(figure, packed, blocks), tuple(_kept(figure, packed)))


def shown_scale(figure: TimeSeries) -> Scale:
    """The figure's units."""
    return scale(_highest(figure), figure.unit)


def _kept(figure: TimeSeries, packed: Sequence[Packed]) -> list[str]:
    """How finely each curve is kept on the page; one line where all are alike."""
    told: dict[str, list[str]] = {}
    for series, each in zip(figure.series, packed, strict=True):
        told.setdefault(_fineness(series, each), []).append(series.name)
    return [words if len(told) == 1 else f"{', '.join(names)}: {words}" for words, names in told.items()]


def _fineness(series: Series, packed: Packed) -> str:
    finest = packed.fine or packed.overview
    width = say(series.period * 2**finest.level, "s", 2)
    steps = f"values to 1/{packed.steps:,} of their range"
    if finest.level == 0:
        return f"every sample of {width}, {steps}"
    return f"lowest, highest and mean of each {width}, {steps}; the Run's tables hold every sample"


def _document(figure: TimeSeries, packed: Sequence[Packed], blocks: Blocks) -> dict[str, Any]:
    shown = shown_scale(figure)
    bottom, top = _limits(figure)
    return {
        "title": inert(figure.title, 120),
        "says": inert(figure.says, 600),
        "group": figure.group,
        "unit": shown.label,
        "si": figure.unit,
        "factor": shown.factor,
        "bottom": bottom * shown.factor,
        "top": top * shown.factor,
        "start": min((series.start for series in figure.series), default=0.0),
        "end": max((series.start + series.values.shape[1] * series.period for series in figure.series), default=1.0),
        "series": [_series(index, series, each, blocks) for index, (series, each) in enumerate(zip(figure.series, packed, strict=True))],
        "references": [{"value": each.value * shown.factor, "label": inert(each.label, 60)} for each in figure.references],
        "marks": blocks.add_marks(figure.marks) if figure.marks is not None else None,
    }


def _series(index: int, series: Series, packed: Packed, blocks: Blocks) -> dict[str, Any]:
    fine = packed.fine
    return {
        "name": inert(series.name, 120),
        "csv": text_cell(series.name),
        "origin": series.origin,
        "noun": series.noun,
        "devices": list(series.devices),
        "start": series.start,
        "period": series.period,
        "samples": int(series.values.shape[1]),
        "colour": index % len(OKABE_ITO),
        "dash": index,
        "overview": {**packed.overview.document(), "id": blocks.add(packed.overview.text)},
        "fine": {**fine.document(), "id": blocks.add(fine.text)} if fine is not None else None,
    }


def _highest(figure: TimeSeries) -> float:
    peaks = [peak[0] for peak in (series.peak() for series in figure.series) if peak is not None]
    return max([*peaks, *(line.value for line in figure.references), figure.ceiling or 0.0], default=1.0)


def _limits(figure: TimeSeries) -> tuple[float, float]:
    """The axis, in SI: from zero, unless the curves keep far above it."""
    present = [series.present for series in figure.series]
    lowest = min((float(values.min()) for values in present if values.size), default=0.0)
    highest = _highest(figure)
    if figure.ceiling is not None and highest <= figure.ceiling:
        return min(lowest, 0.0), figure.ceiling * 1.02
    if figure.unit in _FROM_ANYWHERE and lowest > 0.5 * highest and highest > lowest:
        room = (highest - lowest) * 0.12
        return lowest - room, highest + room
    return min(lowest, 0.0), highest * 1.06 if highest > 0 else 1.0


def _marks(table: pa.Table) -> dict[str, Any]:
    """The spans of the first rank, times in ms, starts as differences."""
    rows = sorted(_spans(table), key=lambda row: (row["start"], _KINDS.index(row["kind"])))
    names = sorted({row["name"] for row in rows})
    starts = np.array([round(row["start"] * 1000) for row in rows], dtype=np.int64)
    return {
        "names": names,
        "start": np.diff(starts, prepend=0).tolist(),
        "length": [-1 if row["end"] is None else max(round((row["end"] - row["start"]) * 1000), 0) for row in rows],
        "kind": [_KINDS.index(row["kind"]) for row in rows],
        "name": [names.index(row["name"]) for row in rows],
        "step": [row["step"] for row in rows],
    }


def _spans(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Steps first, then what is finer, until there are enough."""
    needed = {"start", "end", "kind", "name", "step"}
    if not needed <= set(table.column_names):
        return
    rows = table.to_pylist()
    first = min((row.get("rank") or 0 for row in rows), default=0)
    room = _MOST_MARKS
    for kind in _KINDS:
        of_kind = [row for row in rows if row["kind"] == kind and (row.get("rank") or 0) == first and _is_time(row["start"])]
        if len(of_kind) > room:
            return
        room -= len(of_kind)
        for row in of_kind:
            end = row["end"] if _is_time(row["end"]) else None
            yield {
                "start": row["start"],
                "end": end,
                "kind": kind,
                "name": inert(row["name"] or "", 60),
                "step": -1 if row["step"] is None else row["step"],
            }


def _is_time(value: object) -> bool:
    return isinstance(value, float) and abs(value) < 1e9
