"""A timeline of fewer rows that still reaches every extreme: what is dropped never was a peak."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# The curves whose extremes must survive.
_CURVES = ("allocated", "reserved")


def downsample(table: pa.Table, buckets: int, curves: tuple[str, ...] = _CURVES) -> pa.Table:
    """Rows of `table`, in order and unaltered: of each of `buckets` equal runs of rows, those where a curve is highest and lowest.

    The first and last row stay too, so a table that is short enough comes back whole.
    """
    present = [name for name in curves if name in table.column_names]
    if table.num_rows <= buckets * 2 * max(len(present), 1):
        return table
    return table.take(pa.array(keep([np.asarray(table.column(name)) for name in present], table.num_rows, buckets)))


def keep(curves: list[npt.NDArray[np.int64]], rows: int, buckets: int) -> npt.NDArray[np.int64]:
    """Row numbers to keep."""
    starts = np.unique(np.linspace(0, rows, buckets + 1, dtype=np.int64)[:-1])
    kept = [np.array([0, rows - 1], dtype=np.int64)]
    for curve in curves:
        for sign in (1, -1):
            kept.append(_first_extreme(sign * curve, starts))
    return np.unique(np.concatenate(kept))


def _first_extreme(curve: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    highest = np.repeat(np.maximum.reduceat(curve, starts), np.diff(np.append(starts, len(curve))))
    at = np.flatnonzero(curve == highest)
    return np.asarray(at[np.unique(np.searchsorted(at, starts))], dtype=np.int64)
