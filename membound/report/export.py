"""All exports of a Run into one folder: pictures, tables, and traces for PyTorch's and Perfetto's viewers."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from membound.report import memory_viewer, perfetto, perfetto_times
from membound.report.downsample import downsample
from membound.report.files import atomically
from membound.report.inert import inert
from membound.report.terminal import summary
from membound.report.timeline import TABLE, has_timeline, render
from membound.run.schema import Run
from membound.trace.schema import Trace

# Rows of the CSV timeline are at most four times this.
_BUCKETS = 2000
_TEXT_WIDTH = 100


def write_all(folder: Path, run: Run, trace: Trace | None = None, times: perfetto.Times | None = None) -> list[Path]:
    """Write every export that `run` and `trace` allow into `folder`, and say which. Each file is whole or absent. Raises `StorageError`.

    With `times`, Perfetto shows the instructions that have one, in time; without, the whole program in its order.
    """
    files: dict[str, Any] = {"summary.txt": lambda: text(run).encode()}
    if has_timeline(run):
        files["memory.png"] = lambda: render(run, "png", scale=2)
        files["memory.svg"] = lambda: render(run, "svg")
        files["timeline.csv"] = lambda: _csv(downsample(run.tables[TABLE], _BUCKETS), TABLE)
    if "memory.holdings" in run.tables:
        files["holdings.csv"] = lambda: _csv(run.tables["memory.holdings"], "memory.holdings")
    written = []
    for name, content in files.items():
        with atomically(folder / name) as out:
            out.write(content())
        written.append(folder / name)
    if trace is not None:
        written += _traces(folder, run, trace, times)
    return written


def text(run: Run) -> str:
    """The summary as plain text, 100 columns wide."""
    out = io.StringIO()
    Console(file=out, width=_TEXT_WIDTH, color_system=None, force_terminal=False, legacy_windows=False, _environ={}).print(summary(run))
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())


def _traces(folder: Path, run: Run, trace: Trace, times: perfetto.Times | None) -> list[Path]:
    snapshot, chrome = folder / "memory_snapshot.pickle", folder / "trace.perfetto.json.gz"
    memory_viewer.write(trace, snapshot)
    timeline = run.tables.get(TABLE)
    if timeline is not None and times is not None:
        timeline = perfetto_times.within(timeline, times)
    perfetto.write(trace, chrome, timeline, times)
    return [snapshot, chrome]


# Columns that hold bytes; heads carry their unit.
_BYTES = {"memory.holdings": {"nbytes"}}
_PLACES = {"instruction", "phase", "step", "micro"}


def _csv(table: pa.Table, name: str) -> bytes:
    in_bytes = _BYTES.get(name, set(table.column_names) - _PLACES)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(f"{column}_B" if column in in_bytes else column for column in table.column_names)
    for row in zip(*(table.column(column).to_pylist() for column in table.column_names), strict=True):
        writer.writerow(_cell(value) for value in row)
    return out.getvalue().encode()


def _cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula is quoted."""
    if not isinstance(value, str):
        return value
    text_ = inert(value, 1000)
    return f"'{text_}" if text_[:1] in {"=", "+", "-", "@"} else text_
