"""Summary values of Runs as tables: each with its band and its basis, missing ones with their reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from membound.report.charts.data import Amount, Cell, Column, Noted
from membound.report.charts.table import Table
from membound.report.inert import inert
from membound.run.quantities import QUANTITIES
from membound.run.schema import Missing, Run, Value

# nvml.h, nvmlClocksEventReason*: why the driver holds clocks back.
_REASONS: Final = {
    0x1: "idle",
    0x2: "clocks set by an application",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake from outside",
    0x100: "display clocks",
}


def of_one(run: Run) -> Table:
    """Every value of one Run."""
    columns = (Column("quantity"), Column("value"), Column("SI unit"), Column("basis"))
    rows = tuple((_named(name), banded(run.values[name]), QUANTITIES[name].unit, _basis(run.values[name])) for name in ordered({"": run}))
    return Table(title="Values", says=_counted({"": run}), source=run.origin, columns=columns, rows=rows)


def _named(name: str) -> Noted:
    return Noted(name, QUANTITIES[name].meaning)


def of_many(runs: Mapping[str, Run]) -> Table:
    """Every value of several Runs side by side, each with its ratio to the first Run."""
    labels = list(runs)
    columns = [Column("quantity"), Column("SI unit"), Column(labels[0])]
    for label in labels[1:]:
        columns += [Column(label), Column(f"{label} / {labels[0]}")]
    rows: list[tuple[Cell, ...]] = []
    for name in ordered(runs):
        first = runs[labels[0]].values.get(name)
        row: list[Cell] = [_named(name), QUANTITIES[name].unit, banded(first)]
        for label in labels[1:]:
            other = runs[label].values.get(name)
            row += [banded(other), _ratio(other, first)]
        rows.append(tuple(row))
    return Table(title="Values side by side", says=_counted(runs), columns=tuple(columns), rows=tuple(rows), source=_origins(runs))


def bases(runs: Mapping[str, Run]) -> Table:
    """Where each value of each Run comes from."""
    rows: list[tuple[Cell, ...]] = []
    for name in ordered(runs):
        told = [(label, _basis(run.values[name])) for label, run in runs.items() if isinstance(run.values.get(name), Value)]
        for words in dict.fromkeys(words for _, words in told):
            rows.append((name, ", ".join(label for label, each in told if each == words), words))
    return Table(title="Where the values come from", columns=(Column("quantity"), Column("run"), Column("basis")), rows=tuple(rows))


def held_back(runs: Mapping[str, Run]) -> Table | None:
    """Why the driver held clocks back, and for what share of the samples; None where no Run has the curve `throttle`."""
    rows: list[tuple[Cell, ...]] = []
    for label, run in runs.items():
        table = run.tables.get("gpu")
        if table is None or "throttle" not in table.column_names:
            continue
        bits = np.asarray(table.column("throttle").drop_null().to_numpy()).astype(np.int64)
        for bit, words in _REASONS.items():
            share = float((bits & bit != 0).mean()) if len(bits) else 0.0
            if share:
                rows.append((label, words, share))
    columns = (Column("run"), Column("reason"), Column("share of samples", "1"))
    return Table(title="What held clocks back", columns=columns, rows=tuple(rows), source="the driver's clock event reasons") if rows else None


def ordered(runs: Mapping[str, Run]) -> list[str]:
    """The quantities that any Run holds, in the registry's order."""
    return [name for name in QUANTITIES if any(name in run.values for run in runs.values())]


def banded(value: Value | Missing | None) -> Cell:
    """A value with its band, where it has one."""
    if not isinstance(value, Value):
        return value
    return Amount(value.value, value.unit) if value.low == value.high else Amount(value.value, value.unit, value.low, value.high)


def _ratio(value: Value | Missing | None, first: Value | Missing | None) -> Cell:
    # A ratio of temperatures in degC has no meaning.
    if not isinstance(value, Value) or not isinstance(first, Value) or first.value == 0 or value.unit == "degC":
        return None
    return f"{value.value / first.value:.3f}"


def _basis(value: Value | Missing) -> str:
    return "" if isinstance(value, Missing) else inert(value.basis)


def _counted(runs: Mapping[str, Run]) -> str:
    given = [value for run in runs.values() for value in run.values.values()]
    missing = sum(isinstance(value, Missing) for value in given)
    return f"{len(given) - missing} values, {missing} missing with their reasons." if missing else f"{len(given)} values, none missing."


def _origins(runs: Mapping[str, Run]) -> str:
    return "; ".join(f"{label}: {run.origin}" for label, run in runs.items())
