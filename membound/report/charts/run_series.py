"""From a Run's tables to curves on an even grid: rows in any order, holes where rows or values are missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from membound.errors import RecordError
from membound.report.charts.time_series import Series
from membound.report.inert import inert
from membound.run.schema import Run
from membound.run.series import GPU_PERIOD, HOST_PERIOD

# Key column, what a device is called, and the grid of each table: the series of a Run as membound.run.series has them.
_TABLES: Final = {"gpu": ("gpu", "GPU", GPU_PERIOD), "host": ("node", "node", HOST_PERIOD)}
# More samples than a month of eight GPUs: times that are no times.
_MOST_SAMPLES: Final = 2**30


@dataclass(frozen=True, eq=False)
class Grid:
    """Where each row of a table belongs: its device and its sample."""

    devices: tuple[int, ...]
    row_device: npt.NDArray[np.int64]
    row_sample: npt.NDArray[np.int64]
    samples: int
    start: float
    period: float
    noun: str

    def place(self, column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
        """A column as [devices, samples]; NaN where there is no row, or no finite value."""
        given = column.cast(pa.float64()).to_numpy()
        out = np.full(len(self.devices) * self.samples, np.nan)
        # Where two rows fall on one sample, the higher stays: a peak is never lost.
        np.fmax.at(out, self.row_device * self.samples + self.row_sample, np.where(np.isfinite(given), given, np.nan))
        return out.reshape(len(self.devices), self.samples)


def grid(table: pa.Table, name: str) -> Grid | None:
    """The grid of the table called `name`, or None where it has no rows. Raises `RecordError` for times that lie on no grid."""
    key, noun, usual = _TABLES[name]
    if not {"time", key} <= set(table.column_names):
        raise RecordError(f"table {name}: lacks its column {'time' if key in table.column_names else key}")
    if table.num_rows == 0:
        return None
    time, ids = _numbers(table, "time", name), _numbers(table, key, name)
    devices, row_device = np.unique(ids.astype(np.int64), return_inverse=True)
    start = float(time.min())
    period = _period(time, usual)
    samples = round((float(time.max()) - start) / period) + 1
    if samples * len(devices) > _MOST_SAMPLES:
        raise RecordError(f"table {name}: time runs from {start:g} to {time.max():g} s at {period:g} s: too long to be drawn")
    return Grid(tuple(int(each) for each in devices), row_device, np.rint((time - start) / period).astype(np.int64), samples, start, period, noun)


def series(run: Run, table: str, curve: str, placed: Grid, name: str) -> Series:
    """The column `curve` of `run`'s `table`, called `name`, with where it comes from as the table `curves` says."""
    values = placed.place(run.tables[table].column(curve))
    about = _origin(run, table, curve)
    absent = about.get("missing")
    native = about.get("period")
    return Series(
        name=name,
        origin=run.origin,
        devices=placed.devices,
        values=values,
        start=placed.start,
        period=placed.period,
        noun=placed.noun,
        tier=inert(about.get("tier") or "", 40),
        sensor=inert(about.get("source") or ""),
        native=float(native) if native is not None and np.isfinite(native) else None,
        missing=int(absent) if absent is not None else int(np.isnan(values).sum()),
        reason=inert(about.get("reason") or ""),
    )


def drawable(table: pa.Table, curve: str) -> bool:
    """Whether `table` holds numbers called `curve`, or holes where they would be."""
    if curve not in table.column_names:
        return False
    kind = table.schema.field(curve).type
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind))


def _numbers(table: pa.Table, column: str, name: str) -> npt.NDArray[np.float64]:
    try:
        found = np.asarray(table.column(column).cast(pa.float64()).to_numpy(), dtype=np.float64)
    except pa.ArrowException:
        raise RecordError(f"table {name}: column {column} holds no numbers") from None
    if not np.isfinite(found).all():
        raise RecordError(f"table {name}: column {column} holds rows without a finite number")
    return found


def _period(time: npt.NDArray[np.float64], usual: float) -> float:
    """The shortest step between times; the usual one where that is near, or where there is only one time. A finer grid is taken as it is."""
    steps = np.diff(np.unique(time))
    # Devices may be read one after the other, and a row may come twice: shorter steps than most are no grid.
    long = steps[steps >= 0.75 * usual]
    found = float(long.min()) if len(long) else float(np.median(steps)) if len(steps) else usual
    return usual if abs(found - usual) <= 0.25 * usual else found


def _origin(run: Run, table: str, curve: str) -> dict[str, Any]:
    curves = run.tables.get("curves")
    if curves is None or not {"table", "curve"} <= set(curves.column_names):
        return {}
    rows = curves.filter(pc.and_(pc.equal(curves.column("table"), table), pc.equal(curves.column("curve"), curve))).to_pylist()
    return rows[0] if rows else {}
