"""All exports into one folder, and what happens when the disk refuses."""

from __future__ import annotations

import csv
import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from membound.errors import StorageError
from membound.report import export
from membound.report.files import atomically
from membound.run.schema import Run
from membound.trace.schema import Trace

ALL = {"memory.png", "memory.svg", "memory_snapshot.pickle", "trace.perfetto.json.gz", "summary.txt", "holdings.csv", "timeline.csv"}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_everything_is_written_and_nothing_else(tmp_path: Path, run: Run, trace: Trace) -> None:
    written = export.write_all(tmp_path / "out", run, trace)
    assert {path.name for path in written} == {path.name for path in (tmp_path / "out").iterdir()} == ALL


def test_what_cannot_be_had_is_left_out(tmp_path: Path, run: Run) -> None:
    written = export.write_all(tmp_path, replace(run, tables={}))
    assert [path.name for path in written] == ["summary.txt"]


def test_tables_have_units_in_their_heads_and_keep_the_peak(tmp_path: Path, run: Run) -> None:
    export.write_all(tmp_path, run)
    timeline, holdings = rows(tmp_path / "timeline.csv"), rows(tmp_path / "holdings.csv")
    assert max(int(row["allocated_B"]) for row in timeline) == max(run.tables["memory.timeline"]["allocated"].to_pylist())
    assert set(timeline[0]) >= {"instruction", "phase", "step", "weights_B", "reserved_B"}
    assert holdings[-1] == {"category": "optimizer", "module": "", "line": "torch/optim/adam.py:178", "nbytes_B": str(8 * 2**30), "blocks": "4"}


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\x1b[31m=1"])
def test_a_spreadsheet_takes_no_name_for_a_formula(tmp_path: Path, run: Run, name: str) -> None:
    holdings = pa.table({"category": [name], "module": [name], "line": [name], "nbytes": [1], "blocks": [1]})
    export.write_all(tmp_path, replace(run, tables={"memory.holdings": holdings}))
    (row,) = rows(tmp_path / "holdings.csv")
    assert row["module"].startswith("'")
    assert "\x1b" not in row["module"]


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission denied"), (errno.EIO, "Input/output error")]
)
def test_a_disk_that_refuses_is_one_line_and_leaves_nothing(
    tmp_path: Path, run: Run, trace: Trace, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match=words) as caught:
        export.write_all(tmp_path, run, trace)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomically(path) as out:
        out.write(b"new" * (1 // 0))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_file_where_the_folder_should_be_is_said(tmp_path: Path, run: Run) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="is a file"):
        export.write_all(tmp_path / "file", run)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode="r": real(Path("/dev/full"), "wb") if mode == "xb" else real(self, mode))
    with pytest.raises(StorageError, match="full"):
        export.write_all(tmp_path, run)


def test_reports_load_neither_torch_nor_what_made_the_run() -> None:
    code = "import sys, membound.report.export; print(*(m for m in sys.modules if m.startswith(('torch', 'membound.'))))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert {name.split(".")[1] for name in loaded if name.startswith("membound.")} <= {"errors", "units", "folders", "run", "trace", "report", "spec"}
    assert not any(name.split(".")[0] == "torch" for name in loaded)
