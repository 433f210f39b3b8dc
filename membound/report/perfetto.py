"""The Trace as a Chrome trace that ui.perfetto.dev opens: operations by stream, modules and phases, waits as arrows, memory as counters.

Format: "Trace Event Format" (docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU), as Perfetto reads it
(perfetto.dev/docs/getting-started/other-formats).
Without times, the axis is program order: each operation takes a nominal microsecond, and the process says so.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from membound.report.files import atomically
from membound.report.inert import inert
from membound.report.perfetto_clock import Clock, Times, clock
from membound.report.perfetto_tracks import arrows, counters, slices
from membound.trace.schema import KIND, PHASES, Trace

__all__ = ["Times", "events", "write"]

_PID: Final = 1
# Track numbers: phases and modules above, then the host, then the streams.
_PHASES, _MODULES, _HOST, _STREAMS = 1, 2, 3, 10

Event = dict[str, Any]


def events(trace: Trace, timeline: pa.Table | None = None, times: Times | None = None) -> Iterator[Event]:
    """The events of `trace`. `timeline` is a Run's memory.timeline; without it the counter is of allocated memory alone."""
    now = clock(trace, times)
    yield from _names(trace, times is None)
    for track, groups in ((_PHASES, _phase_paths(trace)), (_MODULES, _module_paths(trace))):
        for name, start, duration in slices(groups, now.edges):
            yield {"ph": "X", "pid": _PID, "tid": track, "name": name, "cat": "phase" if track == _PHASES else "module", "ts": start, "dur": duration}
    yield from _operations(trace, now)
    for number, (source, sink) in enumerate(arrows(trace, now.operations)):
        for kind, row in (("s", source), ("f", sink)):
            end = {"bp": "e"} if kind == "f" else {}
            place = {"pid": _PID, "tid": _track(trace, row), "ts": float(now.start[row])}
            yield {"ph": kind, "id": number, "name": "wait", "cat": "event", **place, **end}
    for at, values in counters(trace, timeline, now.edges):
        yield {"ph": "C", "pid": _PID, "name": "GPU memory, bytes:", "ts": at, "args": values}


def write(trace: Trace, path: Path, timeline: pa.Table | None = None, times: Times | None = None) -> None:
    """Write the events to `path` as gzipped JSON, whole or not at all. Raises `StorageError`."""
    about = {"made_by": "membound", "time_axis": _axis(times is None), "rank": trace.header.rank, "ranks": trace.header.ranks}
    with atomically(path) as out, gzip.GzipFile(filename="", mode="wb", fileobj=out, compresslevel=6, mtime=0) as packed:
        packed.write(f'{{"displayTimeUnit":"ns","otherData":{json.dumps(about)},"traceEvents":[\n'.encode())
        for index, event in enumerate(events(trace, timeline, times)):
            packed.write((",\n" if index else "").encode() + json.dumps(event, separators=(",", ":")).encode())
        packed.write(b"\n]}\n")


@dataclass(frozen=True)
class _Words:
    """The header's string tables, inert."""

    ops: list[str]
    modules: list[str]
    lines: list[str]

    @classmethod
    def of(cls, trace: Trace) -> _Words:
        header = trace.header
        return cls(*([inert(word) for word in table] for table in (header.ops, header.modules, header.lines)))


def _axis(nominal: bool) -> str:
    return "program order, not time: 1 us per operation" if nominal else "predicted time"


def _names(trace: Trace, nominal: bool) -> Iterator[Event]:
    header = trace.header
    yield _meta("process_name", 0, f"rank {header.rank} of {header.ranks} ({_axis(nominal)})")
    tracks = {_PHASES: "phases", _MODULES: "modules", _HOST: "host"}
    columns = trace.instructions
    for stream in np.unique(columns["stream"][trace.select("kernel", "copy_h2d", "copy_d2h", "collective")]).tolist():
        kinds = set(columns["kind"][columns["stream"] == stream].tolist())
        use = "kernels" if KIND["kernel"] in kinds else "collectives" if KIND["collective"] in kinds else "copies"
        tracks[_STREAMS + stream] = f"stream {stream} ({use if stream else 'default'})"
    for track, name in tracks.items():
        yield _meta("thread_name", track, name)
        yield {"ph": "M", "pid": _PID, "tid": track, "name": "thread_sort_index", "args": {"sort_index": track}}


def _meta(kind: str, track: int, name: str) -> Event:
    return {"ph": "M", "pid": _PID, "tid": track, "name": kind, "args": {"name": name}}


def _track(trace: Trace, row: int) -> int:
    on_host = trace.instructions["kind"][row] in {KIND["host"], KIND["sync"]}
    return _HOST if on_host else _STREAMS + int(trace.instructions["stream"][row])


def _operations(trace: Trace, now: Clock) -> Iterator[Event]:
    columns, words = trace.instructions, _Words.of(trace)
    names = {code: name for name, code in KIND.items()}
    for row in now.operations.tolist():
        kind = names[int(columns["kind"][row])]
        args: dict[str, Any] = {"module": words.modules[columns["module"][row]], "line": words.lines[columns["line"][row]]}
        args |= {name: columns[name][row].item() for name in ("nbytes", "flops", "ranks")}
        yield {
            "ph": "X", "pid": _PID, "tid": _track(trace, row), "name": words.ops[columns["op"][row]] or kind, "cat": kind,
            "ts": float(now.start[row]), "dur": float(now.duration[row]), "args": {name: value for name, value in args.items() if value},
        }  # fmt: skip


Paths = tuple[npt.NDArray[np.int64], list[tuple[str, ...]]]


def _phase_paths(trace: Trace) -> Paths:
    """First instruction of each run of one phase, and its path: step, micro-step, phase."""
    columns = trace.instructions
    starts = _changes(columns["phase"], columns["step"], columns["micro"])
    paths: list[tuple[str, ...]] = []
    for row in starts.tolist():
        step, micro, phase = int(columns["step"][row]), int(columns["micro"][row]), PHASES[columns["phase"][row]]
        inner = (f"micro-step {micro + 1}",) if micro >= 0 and phase != "optimizer" else ()
        paths.append((f"step {step + 1}", *inner, phase) if step >= 0 else (phase,))
    return starts, paths


def _module_paths(trace: Trace) -> Paths:
    """First instruction of each run of one module, and its path; a numbered part goes with the part before it: 'layers.3'."""
    columns = trace.instructions
    starts = _changes(columns["module"], columns["phase"], columns["step"], columns["micro"])
    split = [_parts(inert(module)) for module in trace.header.modules]
    return starts, [split[columns["module"][row]] for row in starts.tolist()]


def _parts(path: str) -> tuple[str, ...]:
    parts: list[str] = []
    for part in path.split(".") if path else ():
        if part.isdigit() and parts:
            parts[-1] += f".{part}"
        else:
            parts.append(part)
    return tuple(parts)


def _changes(*columns: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if not len(columns[0]):
        return np.empty(0, dtype=np.int64)
    changed = np.zeros(len(columns[0]), dtype=bool)
    changed[0] = True
    for column in columns:
        changed[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(changed)
