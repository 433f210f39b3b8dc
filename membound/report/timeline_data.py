"""What a memory timeline draws, as numbers: taken from a Run, thinned to the pixels there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from membound.report.downsample import downsample
from membound.report.palette import STACK
from membound.report.spans import Span, place, spans
from membound.report.terminal import gpu_capacity
from membound.run.schema import Run

_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))


# What is worth an entry of its own.
_MORE: Final = 1.01


@dataclass(frozen=True)
class Drawn:
    """All in bytes; x from 0 to 1 along the program."""

    x: npt.NDArray[np.float64]
    allocated: npt.NDArray[np.int64]
    reserved: npt.NDArray[np.int64] | None
    stack: dict[str, npt.NDArray[np.int64]]
    """From the bottom; only what is ever held."""
    outside: float
    """Context and libraries: under the stack."""
    capacity: float | None
    bands: tuple[Span, ...]
    edges: npt.NDArray[np.float64]
    """x of each band's start, and of the last one's end."""
    peak: int
    """Row of the allocated peak."""
    moment: Mapping[str, Any]
    unit: str
    scale: float
    rows: float | None = None
    """What the driver would show over rows of differing length, where that is more than of those that are drawn, which are at the cap."""

    @property
    def highest(self) -> float:
        """The most that the driver would show."""
        most = self.allocated if self.reserved is None else np.maximum(self.allocated, self.reserved)
        return float(most.max()) + self.outside

    @property
    def capacity_shown(self) -> bool:
        """Whether the capacity is on the scale: not when it would press the curve flat."""
        return self.capacity is not None and self.capacity <= 4 * self.highest

    @property
    def ceiling(self) -> float:
        """Top of the scale, with room for the words about the peak."""
        capacity = self.capacity if self.capacity is not None and self.capacity_shown else 0.0
        roomy = capacity > 1.45 * self.highest
        return max(capacity * (1.08 if roomy else 1.24), self.highest * 1.34, 1.0)


def drawn(run: Run, table: pa.Table, pixels: int) -> Drawn:
    """`run`'s timeline for a plot so many pixels wide."""
    bands = spans(table)
    thin = downsample(table, max(pixels // 2, 64))
    allocated = _column(thin, "allocated")
    held = {name: _column(thin, name) for name in STACK if name in thin.column_names}
    outside = sum(run.number(f"gpu.memory.{name}") or 0 for name in ("context", "libraries"))
    moment = run.about.get("moment")
    unit, scale = next(((name, size) for name, size in _UNITS if allocated.max(initial=0) + outside >= size), ("B", 1))
    edges = place(np.array([band.start for band in bands] + [bands[-1].end]), bands)
    return Drawn(
        x=place(_column(thin, "instruction"), bands),
        allocated=allocated,
        reserved=_column(thin, "reserved") if "reserved" in thin.column_names else None,
        stack={name: column for name, column in held.items() if column.max(initial=0) > 0},
        outside=outside,
        capacity=gpu_capacity(run),
        bands=bands,
        edges=edges,
        peak=int(np.argmax(allocated)),
        moment=moment if isinstance(moment, Mapping) else {},
        unit=unit,
        scale=float(scale),
        rows=_of_rows(run, table),
    )


def _of_rows(run: Run, table: pa.Table) -> float | None:
    reserved = run.number("gpu.memory.reserved.peak")
    if run.origin != "predicted" or reserved is None or "reserved" not in table.column_names:
        return None
    return run.number("gpu.memory.used.peak") if reserved > _MORE * _column(table, "reserved").max(initial=0) else None


def _column(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    return np.asarray(table.column(name)).astype(np.int64)
