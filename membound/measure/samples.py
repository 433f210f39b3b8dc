"""Reading a recording: at any time, while it runs, after its end, and after any of its processes was killed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from membound.errors import RecordError
from membound.measure import curve_table, manifest, parts, spawn
from membound.measure.control import Control
from membound.measure.ring import Ring
from membound.measure.sensors import columns
from membound.measure.sensors.base import Validity

# A reader may look just while parts are joined: it looks again.
_TRIES: Final = 5
# A sampler gives a sign of life each second.
_ALIVE_NS: Final = 5_000_000_000
_KEYS: Final = {"gpu": "gpu", "host": "node"}


@dataclass(frozen=True)
class Samples:
    """What was recorded. `tables`: `gpu`, `host` and `curves` as `membound.run.series` has them."""

    tables: dict[str, pa.Table]
    manifest: dict[str, Any]
    ended: str
    """`stopped`, `running`, or what happened instead, in words."""
    stored: dict[str, pa.Table]
    """The tables as they are stored: with ticks, lateness, validity codes, and a bit for each value that is new."""

    def freshness(self, table: str = "gpu") -> pa.Table:
        """Per row of `table`: `late` and `took` (s) of its reading, and per curve `<curve>.age`, s since its value last changed, and
        `<curve>.validity` in words. Age is null while there is no value."""
        return _freshness(self.stored[table], table, self.manifest["period_s"] if table == "gpu" else self.manifest["host_period_s"])


def read(folder: Path) -> Samples:
    """The samples in `folder` so far. Raises `RecordError` if it holds no recording."""
    plan = _plan(folder)
    control = _control(plan)
    found = manifest.read(folder)
    if control is not None and not found.get("ended"):
        found = manifest.compose(plan, control, [*found.get("clocks", []), manifest.clock()], None)
    elif not found:
        found = {**_EMPTY, "period_s": plan["period"], "host_period_s": plan["host_period"], "source": plan["source"], "boot_id": plan["boot"]}
    stored, damaged = {}, []
    for table in columns.TABLES:
        stored[table], bad = _stored(folder, table, plan)
        damaged += bad
    ended = found["ended"] or _ended(control, plan)
    if control is not None:
        control.close()
    found = {**found, "grid": _grid(stored["gpu"]), "damaged_parts": damaged}
    tables = {table: _public(stored[table], table, found) for table in columns.TABLES}
    tables["curves"] = curve_table.build(stored, found)
    return Samples(tables, found, ended, stored)


# What is known of a recording whose processes were all killed before the first manifest, and whose memory is gone.
_EMPTY: Final[dict[str, Any]] = {"schema": manifest.SCHEMA, "ended": None, "epoch_ns": 0, "gpus": [], "hardware": {}, "sensors": [], "gaps": []}


def _plan(folder: Path) -> dict[str, Any]:
    import json

    try:
        plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
        _ = plan["shared"], plan["period"], plan["host_period"], plan["source"], plan["boot"], plan["owner"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{folder}: no recording ({error})") from None
    return plan


def _control(plan: dict[str, Any]) -> Control | None:
    """The shared page, where it is still there: what its writers last said."""
    if plan["boot"] != spawn.boot_id():
        return None
    try:
        return Control.open(Path(plan["shared"]))
    except (OSError, ValueError):
        return None


def _ended(control: Control | None, plan: dict[str, Any]) -> str:
    if control is None:
        return manifest.KILLED
    living = [name for name in ("sampler", "drain") if control.get(f"{name}_pid") and spawn.alive(control.get(f"{name}_pid"))]
    if living and time.monotonic_ns() - control.get("beat_ns") < _ALIVE_NS and spawn.alive(plan["owner"]):
        return manifest.RUNNING
    return manifest.KILLED if not living else f"ending: {' and '.join(living)} still at work"


def _stored(folder: Path, table: str, plan: dict[str, Any]) -> tuple[pa.Table, list[str]]:
    """All rows, from the parts and from what the ring holds beyond them; and names of parts that do not open."""
    for _ in range(_TRIES):
        # The ring first: what it holds now may be in a part a moment later, and is then taken from there.
        ring = _ring_rows(plan, table)
        try:
            tables, damaged, following = _part_rows(folder, table)
        except FileNotFoundError:
            continue
        if ring is not None and len(ring):
            rest = ring[ring["number"] >= following]
            tables.append(parts.to_arrow(table, rest))
        joined = pa.concat_tables([parts.to_arrow(table, _no_rows(table)), *tables])
        return joined.sort_by([("tick", "ascending"), ("key", "ascending")]), damaged
    raise RecordError(f"{folder}: its parts change faster than they can be read")


def _no_rows(table: str) -> Any:
    from membound.measure.ring import Layout

    return np.zeros(0, Layout(len(columns.TABLES[table])).dtype)


def _part_rows(folder: Path, table: str) -> tuple[list[pa.Table], list[str], int]:
    tables, damaged, following = [], [], 0
    for part in parts.parts(folder, table):
        following = max(following, part.last + 1)
        try:
            tables.append(pq.read_table(part.path, partitioning=None))
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException):
            damaged.append(part.path.name)
    return tables, damaged, following


def _ring_rows(plan: dict[str, Any], table: str) -> Any:
    path = Path(plan["shared"]) / table
    if plan["boot"] != spawn.boot_id() or not path.exists():
        return None
    try:
        ring = Ring(path)
    except (OSError, ValueError):
        return None
    rows, _ = ring.read(0)
    ring.close()
    return rows


def _public(stored: pa.Table, table: str, found: dict[str, Any]) -> pa.Table:
    """As the series have it: time, key, curves."""
    period = found["period_s"] if table == "gpu" else found["host_period_s"]
    times = pc.multiply(stored["tick"].cast(pa.float64()), period)
    keys = stored["key"].cast(pa.int32())
    return pa.table({"time": times, _KEYS[table]: keys, **{curve: parts.values(stored, curve) for curve in columns.TABLES[table]}})


def _grid(stored: pa.Table) -> dict[str, Any]:
    """How well the grid was kept: errors of the readings' times, s, and ticks without a row."""
    if not len(stored):
        return {"ticks": 0}
    ticks = np.unique(stored["tick"].to_numpy())
    due = int(ticks[-1] - ticks[0]) + 1
    late = stored["late_us"].drop_null().to_numpy() * 1e-6
    errors = (
        dict(zip(("median_error_s", "p99_error_s", "worst_error_s"), np.percentile(late, (50, 99, 100)).tolist(), strict=True)) if len(late) else {}
    )
    unread = stored["late_us"].null_count / len(stored)
    return {
        "ticks": len(ticks),
        "due": due,
        "missed": due - len(ticks),
        "missed_share": 1 - len(ticks) / due,
        "rows_without_reading": unread,
        **errors,
    }


def _freshness(stored: pa.Table, table: str, period: float) -> pa.Table:
    names = np.array([validity.name.lower() for validity in Validity])
    ticks, keys, bits = stored["tick"].to_numpy(), stored["key"].to_numpy(), stored["fresh"].to_numpy()
    found: dict[str, Any] = {"time": ticks * period, _KEYS[table]: keys.astype(np.int32)}
    for name in ("late", "took"):
        found[name] = pc.multiply(stored[f"{name}_us"].cast(pa.float64()), 1e-6)
    for slot, curve in enumerate(columns.TABLES[table]):
        codes = stored[parts.CODE.format(curve)].to_numpy()
        ages = np.full(len(ticks), np.nan)
        for key in np.unique(keys):
            mine = np.flatnonzero(keys == key)
            ages[mine] = _ages(ticks[mine], (bits[mine] >> slot) & 1) * period
        found[f"{curve}.age"] = pa.array(ages, mask=(codes != 0) | np.isnan(ages))
        found[f"{curve}.validity"] = pa.array(names[codes]).dictionary_encode()
    return pa.table(found)


def _ages(ticks: Any, fresh: Any) -> Any:
    """Ticks since the last one that was fresh; not a number before the first."""
    last = np.maximum.accumulate(np.where(fresh == 1, np.arange(len(ticks)), -1))
    return np.where(last >= 0, ticks - ticks[np.maximum(last, 0)], np.nan)
