"""A sweep as one JSON document and as one table: a row per point, in the grid's order."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from membound.run.schema import Missing, Value
from membound.study.sweep import grid
from membound.study.sweep.grid import Axis
from membound.study.sweep.predicting import Point, Sweep
from membound.study.sweep.values import ENERGY_PER_TOKEN

SCHEMA: Final = 1


def document(found: Sweep) -> dict[str, Any]:
    """The JSON document of `membound sweep`."""
    return {
        "schema": SCHEMA,
        "origin": "predicted",
        "job": dict(found.job),
        "machine": dict(found.machine),
        "axes": [{"key": axis.key, "unit": grid.unit_of(axis.key) or None, "values": list(axis.values)} for axis in found.axes],
        "points": [_entry(point) for point in found.points],
    }


def values_of(point: Point) -> dict[str, Value | Missing]:
    """All values of a point by name; none of a point that is refused."""
    if point.priced is None:
        return {}
    return {**point.priced.values, ENERGY_PER_TOKEN: point.priced.energy_per_token, **(point.memory or {})}


def table(found: Sweep) -> pa.Table:
    """Axes, verdict, values with their bands, and sensitivities. Heads carry their unit; what a point does not have is null."""
    columns: dict[str, list[Any]] = {}
    for axis in found.axes:
        columns |= _axis(axis, found)
    columns["refused"] = [point.refused for point in found.points]
    columns["fits_gpu"] = [None if point.fits is None else point.fits.gpu for point in found.points]
    columns["fits_host"] = [None if point.fits is None else point.fits.host for point in found.points]
    rows = [values_of(point) for point in found.points]
    first = next(row for row in rows if row)
    for name, value in first.items():
        unit = "" if isinstance(value, Missing) or value.unit == "1" else f"_{value.unit}"
        for part in ("value", "low", "high"):
            columns[f"{name}{'' if part == 'value' else f'_{part}'}{unit}"] = [_part(row.get(name), part) for row in rows]
    columns["gain"] = [point.gain for point in found.points]
    columns["bound"] = [None if point.priced is None else point.priced.bound for point in found.points]
    resources = next(point.priced for point in found.points if point.priced is not None).sensitivity
    for name in resources:
        columns[f"sensitivity_{name}"] = [None if point.priced is None else point.priced.sensitivity[name] for point in found.points]
    return pa.table(columns)


def as_csv(table: pa.Table) -> bytes:
    """The table as CSV; what is null is an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True):
        writer.writerow("" if cell is None else _inert(cell) for cell in row)
    return out.getvalue().encode()


def words(value: object) -> str:
    """A value of an axis as it was written."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {words(each)}" for key, each in value.items()) + "}"
    return "null" if value is None else str(value)


def _entry(point: Point) -> dict[str, Any]:
    if point.priced is None:
        return {"at": dict(point.at), "refused": point.refused}
    assert point.fits is not None
    gain = {"missing": "no point is priced before it"} if point.gain is None else {"value": point.gain, "unit": "1"}
    return {
        "at": dict(point.at),
        "fits": point.fits.document(),
        "values": {name: value.document() for name, value in values_of(point).items()},
        "bound": point.priced.bound,
        "sensitivity": dict(point.priced.sensitivity),
        "gain": gain,
    }


def _axis(axis: Axis, found: Sweep) -> dict[str, list[Any]]:
    """The axis as it was written, and in its SI unit where it has one."""
    written = {axis.key: [words(point.at[axis.key]) for point in found.points]}
    numbers = grid.numbers(axis)
    if numbers is None:
        return written
    by_text = dict(zip(map(words, axis.values), numbers, strict=True))
    unit = grid.unit_of(axis.key)
    return {**written, f"{axis.key}_{unit or 'number'}": [by_text[text] for text in written[axis.key]]}


def _part(value: Value | Missing | None, part: str) -> float | None:
    return float(getattr(value, part)) if isinstance(value, Value) else None


def _inert(cell: object) -> object:
    """Text that a spreadsheet would take for a formula is quoted."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in {"=", "+", "-", "@"} else cell
