"""A tree of processes: who belongs to it, what memory it holds, what processor time it took; and how it is told to end."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
import pyarrow as pa

SCHEMA: Final = pa.schema([("time", pa.float64()), ("pid", pa.int64()), ("name", pa.string()), ("rss", pa.int64()), ("cpu_time", pa.float64())])
"""Table `processes`: one row per process and second. Resident bytes count shared pages in each process; processor time is since its start, s."""


def members(root: psutil.Process) -> list[psutil.Process]:
    """`root` and all its descendants that live."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def sample(root: psutil.Process) -> dict[str, Any]:
    """The tree now: [pid, name, resident bytes, processor seconds] of each member."""
    rows = [row for process in members(root) for row in _row(process)]
    return {"t": time.monotonic_ns(), "processes": rows}


def _row(process: psutil.Process) -> Iterator[tuple[int, str, int, float]]:
    # A member may end between being listed and being asked.
    with suppress(psutil.Error), process.oneshot():
        times = process.cpu_times()
        yield process.pid, process.name(), process.memory_info().rss, times.user + times.system


def table(path: Path, epoch_ns: int) -> pa.Table:
    """All samples in the file `path`; torn lines are left out."""
    rows = [
        {"time": (line["t"] - epoch_ns) / 1e9, "pid": pid, "name": name, "rss": rss, "cpu_time": cpu}
        for line in _lines(path)
        for pid, name, rss, cpu in line["processes"]
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def send(processes: Iterable[psutil.Process], number: int) -> None:
    """Send signal `number` to each of `processes` that lives."""
    for process in processes:
        if process.pid != os.getpid():
            with suppress(psutil.Error):
                process.send_signal(number)
