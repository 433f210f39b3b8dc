"""Tracks of a Chrome trace that are not single operations: nested slices, arrows from what is waited for, memory counters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from membound.trace.schema import KIND, PLACE, Trace

Slice = tuple[str, float, float]


def slices(groups: tuple[npt.NDArray[np.int64], list[tuple[str, ...]]], edges: npt.NDArray[np.float64]) -> list[Slice]:
    """Runs of instructions with their paths as nested slices (name, start, duration), parents first. What takes no time is left out."""
    starts, paths = groups
    open_: list[tuple[str, float]] = []
    found: list[tuple[float, float, int, str]] = []
    bounds = [*edges[starts].tolist(), float(edges[-1])]
    for path, now in zip([*paths, ()], bounds, strict=True):
        shared = next((depth for depth, ((name, _), part) in enumerate(zip(open_, path, strict=False)) if name != part), min(len(open_), len(path)))
        while len(open_) > shared:
            name, since = open_.pop()
            if now > since:
                found.append((since, since - now, len(open_), name))
        open_ += [(part, now) for part in path[shared:]]
    return [(name, start, round(-negative, 3)) for start, negative, _, name in sorted(found)]


def arrows(trace: Trace, operations: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """For each wait for an event: the last operation that the event covers, and the first that waited for it. Each pair once."""
    columns = trace.instructions
    last: dict[int, int] = {}
    recorded: dict[int, int | None] = {}
    waiting: dict[int, list[int]] = {}
    found: dict[tuple[int, int], None] = {}
    drawn = set(operations.tolist())
    on_host = {KIND["host"], KIND["sync"]}
    for row in np.union1d(operations, trace.select("record", "wait")).tolist():
        stream, kind, event = (int(columns[name][row]) for name in ("stream", "kind", "target"))
        if kind == KIND["record"]:
            recorded[event] = last.get(stream)
        elif kind == KIND["wait"]:
            source = recorded.get(event)
            if source is not None:
                waiting.setdefault(stream, []).append(source)
        elif row in drawn and kind not in on_host:
            last[stream] = row
            found.update(dict.fromkeys((source, row) for source in waiting.pop(stream, []) if columns["stream"][source] != stream))
    return list(found)


def counters(trace: Trace, timeline: pa.Table | None, edges: npt.NDArray[np.float64]) -> Iterator[tuple[float, dict[str, int]]]:
    """GPU memory at each allocation and free. What falls between two operations is spread over the gap, so that no peak is painted over."""
    rows, values = _curves(trace, timeline)
    kept = rows < len(edges) - 1
    at = edges[rows[kept]]
    distinct, first, count = np.unique(at, return_index=True, return_counts=True)
    gap = np.diff(np.append(distinct, distinct[-1:] + 1.0))
    order = np.arange(len(at)) - np.repeat(first, count)
    spread = np.round(at + np.repeat(gap / (count + 1), count) * order, 4)
    columns = {name: column[kept].tolist() for name, column in values.items()}
    for index, moment in enumerate(spread.tolist()):
        yield moment, {name: column[index] for name, column in columns.items()}


def _curves(trace: Trace, timeline: pa.Table | None) -> tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[np.int64]]]:
    if timeline is not None:
        names = [name for name in ("allocated", "reserved") if name in timeline.column_names]
        rows = np.asarray(timeline.column("instruction")).astype(np.int64)
        return rows, {name: np.asarray(timeline.column(name)).astype(np.int64) for name in names}
    columns, rows = trace.instructions, trace.select("alloc", "free")
    rows = rows[trace.storages["place"][columns["target"][rows]] == PLACE["gpu"]]
    sign = np.where(columns["kind"][rows] == KIND["alloc"], 1, -1)
    # Rounded as the caching allocator does (kMinBlockSize).
    return rows, {"allocated": np.cumsum(sign * (-(-columns["nbytes"][rows] // 512) * 512))}
