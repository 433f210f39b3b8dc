"""Curves over time: as many as wanted, of one unit, each with all it takes to trust it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from membound.report.charts.data import Cell, Column, Data
from membound.report.charts.figure import Figure, Reference


@dataclass(frozen=True, eq=False)
class Series:
    """One curve of one Run, for all its devices, on an even grid of time."""

    name: str
    origin: str
    """measured, predicted or published"""
    devices: tuple[int, ...]
    values: npt.NDArray[np.float64]
    """[devices, samples], SI; NaN where a sample is missing."""
    start: float
    """Time of the first sample, s since the Run began."""
    period: float
    """Time from sample to sample, s."""
    noun: str = "GPU"
    """What a device is."""
    tier: str = ""
    sensor: str = ""
    """The sensor or the law, in words."""
    native: float | None = None
    """How often the source itself has something new, s."""
    missing: int = 0
    reason: str = ""

    @property
    def present(self) -> npt.NDArray[np.float64]:
        """The samples that are not missing."""
        return np.asarray(self.values[np.isfinite(self.values)])

    def peak(self) -> tuple[float, int, float] | None:
        """The highest value, its device, and its time in s; None where all are missing."""
        if not np.isfinite(self.values).any():
            return None
        device, sample = np.unravel_index(int(np.nanargmax(self.values)), self.values.shape)
        return float(self.values[device, sample]), self.devices[int(device)], self.start + int(sample) * self.period


@dataclass(frozen=True, kw_only=True)
class TimeSeries(Figure):
    """Curves of the SI unit `unit`. Figures of one `group` zoom, and follow the pointer, together."""

    unit: str
    series: tuple[Series, ...]
    references: tuple[Reference, ...] = ()
    marks: pa.Table | None = field(default=None, compare=False)
    """Spans as the Run's table `marks` has them; their steps and phases are drawn."""
    group: str = "time"
    ceiling: float | None = None
    """Top of the axis in SI units; None: what the curves need."""

    def references_of(self) -> tuple[Reference, ...]:
        """The lines across."""
        return self.references

    def data(self) -> Data:
        """One row per curve: what it is, where it comes from, its extremes. The samples themselves download from the page."""
        heads = (Column("curve"), Column("origin"), Column("source"), Column("native period", "s"), Column("samples"), Column("missing"))
        levels = (Column("mean", self.unit), Column("lowest", self.unit), Column("highest", self.unit), Column("at", "s"))
        return Data((*heads, *levels, Column("why missing")), [_row(each) for each in self.series])


def _row(series: Series) -> tuple[Cell, ...]:
    present, peak = series.present, series.peak()
    sensor = f"{series.sensor} ({series.tier})" if series.sensor and series.tier else series.sensor or series.tier or "not told"
    front: tuple[Cell, ...] = (series.name, series.origin, sensor, series.native, int(series.values.size), series.missing)
    if peak is None:
        return (*front, None, None, None, None, series.reason)
    return (*front, float(present.mean()), float(present.min()), peak[0], peak[2], series.reason)
