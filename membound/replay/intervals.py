"""Time that a set of intervals covers, and what flows during them, as functions of time."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SHORTEST: Final = 1e-7
"""s: below any kernel's time, and far above what a moment of a run of hours can be told from the next."""


def covered(start: Floats, end: Floats, at: Floats) -> Floats:
    """Seconds before each moment `at` that lie within at least one interval [start, end]; intervals in any order, [n] each."""
    real = end > start
    if not real.all():
        start, end = start[real], end[real]
    if not len(start):
        return np.zeros(len(at))
    order = np.argsort(start, kind="stable")
    begin, finish = start[order], np.maximum.accumulate(end[order])
    # Where nothing goes on until the next one begins.
    gaps = np.flatnonzero(begin[1:] > finish[:-1])
    first, last = begin[np.append(0, gaps + 1)], finish[np.append(gaps, len(begin) - 1)]
    length = np.cumsum(last - first)
    times = np.stack([first, last], axis=1).reshape(-1)
    totals = np.stack([length - (last - first), length], axis=1).reshape(-1)
    return np.asarray(np.interp(at, times, totals, left=0.0), np.float64)


def flowed(start: Floats, end: Floats, amounts: Floats, at: Floats) -> Floats:
    """What has flowed before each moment `at`, if each interval lets its amount flow evenly; [kinds, at].

    Args: `start`, `end` [n]; `amounts` [kinds, n]. An amount whose interval has no length flows within `SHORTEST`.
    """
    long = np.maximum(end - start, SHORTEST)
    rates = amounts / long
    times = np.concatenate([start, start + long])
    order = np.argsort(times, kind="stable")
    times = times[order]
    slopes = np.cumsum(np.concatenate([rates, -rates], axis=1)[:, order], axis=1)
    steps = np.diff(times)
    totals = np.concatenate([np.zeros((len(amounts), 1)), np.cumsum(slopes[:, :-1] * steps, axis=1)], axis=1)
    return np.stack([np.interp(at, times, total, left=0.0) for total in totals])
