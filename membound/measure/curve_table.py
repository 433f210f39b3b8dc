"""The table `curves` of a recording: for each curve its tier, its source, how often that has something new, and what is missing and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from membound.measure import parts
from membound.measure.sensors import columns
from membound.measure.sensors.base import REASONS, Validity
from membound.run.series import CURVE_TABLE

# Changes that make a period: fewer may be chance.
_ENOUGH: Final = 3


def build(stored: Mapping[str, pa.Table], manifest: Mapping[str, Any]) -> pa.Table:
    """One row per curve that a sampler can give, in the order of the tables."""
    rows = [_row(table, curve, stored[table], manifest) for table, curves in columns.TABLES.items() for curve in curves]
    return pa.Table.from_pylist(rows, CURVE_TABLE)


def _row(table: str, curve: str, stored: pa.Table, manifest: Mapping[str, Any]) -> dict[str, Any]:
    sensor = next((each for each in manifest["sensors"] if each["table"] == table and curve in each["curves"]), None)
    missing = stored[curve].null_count
    return {
        "table": table,
        "curve": curve,
        "tier": "none" if sensor is None else sensor["tier"],
        "source": "no sensor" if sensor is None else sensor["source"],
        "period": None if sensor is None else _period(table, curve, sensor, stored, manifest),
        "missing": missing,
        "reason": _reason(table, curve, stored, manifest) if missing or sensor is None else None,
    }


def _period(table: str, curve: str, sensor: Mapping[str, Any], stored: pa.Table, manifest: Mapping[str, Any]) -> float | None:
    """What was learned at the start, if it is asked so often; else what the series shows, where it shows any; else what is documented."""
    learned = sensor["learned_period_s"].get(curve)
    if learned is not None:
        return max(float(learned), float(sensor["asked_every_s"]))
    grid = manifest["period_s"] if table == "gpu" else manifest["host_period_s"]
    observed = _observed(columns.TABLES[table].index(curve), stored)
    documented: float | None = sensor["documented_period_s"].get(curve)
    return documented if observed is None else max(observed * grid, documented or 0.0)


def _observed(slot: int, stored: pa.Table) -> float | None:
    """Median ticks between two new values of one device."""
    keys = stored["key"].to_numpy()
    if not len(keys):
        return None
    new = (keys == keys[0]) & ((stored["fresh"].to_numpy() >> slot) & 1 == 1)
    gaps = np.diff(stored["tick"].to_numpy()[new])
    return float(np.median(gaps)) if len(gaps) >= _ENOUGH else None


def _reason(table: str, curve: str, stored: pa.Table, manifest: Mapping[str, Any]) -> str:
    gaps = [gap for gap in manifest["gaps"] if gap["table"] == table and curve in gap["curves"]]
    told = list(dict.fromkeys(gap["reason"] + (f" (cure: {gap['remedy']})" if gap["remedy"] else "") for gap in gaps))
    codes = stored[parts.CODE.format(curve)].to_numpy()
    # What a gap says in full need not be said again in short.
    seen = [Validity(code) for code in np.unique(codes[codes != 0])]
    short = [REASONS[validity] for validity in seen if not any(gap["validity"] == validity.name.lower() for gap in gaps)]
    return "; ".join([*told, *short]) or "nothing was recorded"
