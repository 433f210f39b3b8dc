"""When each instruction stands on the time axis: nominal, in program order, or as a replay timed it. Microseconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from membound.trace.schema import Trace


@dataclass(frozen=True)
class Times:
    """Start and duration of each instruction, s; NaN where it has none."""

    start: npt.NDArray[np.float64]
    duration: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Clock:
    """All in microseconds, by instruction."""

    operations: npt.NDArray[np.int64]
    """Rows that are drawn."""
    start: npt.NDArray[np.float64]
    duration: npt.NDArray[np.float64]
    edges: npt.NDArray[np.float64]
    """Where the program stands before each instruction, and after the last: never falls. What allocates, or opens a module, does so here."""


def clock(trace: Trace, times: Times | None) -> Clock:
    """The clock of `trace`. Views take no time, so they are not drawn."""
    rows = trace.select("kernel", "copy_h2d", "copy_d2h", "collective", "host", "sync")
    if times is None:
        ones = np.zeros(len(trace), dtype=np.float64)
        ones[rows] = 1.0
        edges = np.concatenate([[0.0], np.cumsum(ones)])
        return Clock(rows, edges[:-1], ones, edges)
    # Three decimals: nanoseconds.
    start, duration = (np.round(column * 1e6, 3) for column in (times.start, times.duration))
    rows = rows[np.isfinite(start[rows]) & np.isfinite(duration[rows])]
    marks = np.full(len(trace) + 1, -np.inf)
    # Modules and memory follow the default stream: what runs beside it would tear their nesting.
    main = rows[trace.instructions["stream"][rows] == 0]
    marks[main] = start[main]
    # What follows the last operation has no time: it stands where all has ended.
    marks[rows.max(initial=-1) + 1 :] = (start[rows] + duration[rows]).max(initial=0.0)
    edges = np.maximum.accumulate(marks)
    first = start[main[0]] if len(main) else 0.0
    return Clock(rows, start, duration, np.maximum(edges, min(float(first), float(marks[-1]))))
