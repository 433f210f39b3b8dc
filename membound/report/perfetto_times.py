"""When the instructions of a Trace run, from a replay of its last step in time. What the replay does not hold has no time, and is not drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from membound.report.perfetto_clock import Times
from membound.trace.schema import KIND

if TYPE_CHECKING:
    from membound.replay.step import Played


def of(played: Played) -> Times:
    """Start and duration of each instruction of the last captured step, with rows of the greatest length priced; s since the step began."""
    program, line = played.work.program, played.timeline
    start, end = np.full(len(program.trace), np.inf), np.full(len(program.trace), -np.inf)
    # Marks in a stream, and waits for them, take no time of their own.
    timed = np.isin(program.kind, [KIND[name] for name in ("kernel", "collective", "copy_h2d", "copy_d2h", "host")])
    # One captured collective may run in several buckets: from the first one's start to the last one's end.
    np.minimum.at(start, program.row[timed], line.start[timed, -1])
    np.maximum.at(end, program.row[timed], line.end[timed, -1])
    known = np.isfinite(start)
    return Times(np.where(known, start, np.nan), np.where(known, end - start, np.nan))


def within(timeline: pa.Table, times: Times) -> pa.Table:
    """The memory timeline from the first instruction that has a time, what is held then included."""
    timed = np.flatnonzero(np.isfinite(times.start))
    if not len(timed):
        return timeline
    first = int(np.searchsorted(np.asarray(timeline.column("instruction")), timed[0]))
    return timeline.slice(max(first - 1, 0))
