"""The calibration study as people and programs read it, and the script that measures kernels, on the processor."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from membound.study.calibration import leave_one_out
from tests.commands import membound

ROOT = Path(__file__).parents[3]
LAWS = {"matmul", "attention forward", "collectives"}
GPUS = {"a100", "h100", "h200", "b200", "l40s"}


@pytest.fixture(scope="module")
def result() -> leave_one_out.Calibration:
    return leave_one_out.run()


def test_every_law_is_examined_on_every_measured_gpu(result: leave_one_out.Calibration) -> None:
    assert {(error.law, error.gpu) for error in result.errors} == {(law, gpu) for law in LAWS for gpu in GPUS}
    assert all(0 < error.median <= error.p90 for error in result.errors)
    assert all(error.count > 200 for error in result.errors)


def test_the_more_is_left_out_the_worse_it_gets(result: leave_one_out.Calibration) -> None:
    """A whole GPU left out hurts more than a point, except between Hoppers' boards, that share their links."""
    by_gpu = {(error.law, error.gpu, error.left_out.split()[0]): error.median for error in result.errors}
    for gpu in GPUS:
        assert by_gpu["matmul", gpu, "point"] < by_gpu["matmul", gpu, "GPU"]
        assert by_gpu["attention forward", gpu, "point"] < by_gpu["attention forward", gpu, "all"]


def test_bins_cover_all_intensities_once(result: leave_one_out.Calibration) -> None:
    assert [bin.high for bin in result.bins[:-1]] == [bin.low for bin in result.bins[1:]]
    assert sum(bin.count for bin in result.bins) > 10_000
    # Memory matters ever less as arithmetic intensity grows.
    assert result.bins[0].predicted > 1.3 > 1.01 > result.bins[-1].predicted


def test_written_tables_hold_what_the_document_says(result: leave_one_out.Calibration, tmp_path: Path) -> None:
    leave_one_out.write(result, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "calibration.json").read_text())
    assert document == json.loads(json.dumps(leave_one_out.document(result)))
    with (tmp_path / "out" / "errors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["median"] for row in rows] == [str(error["median"]) for error in document["errors"]]


def test_the_command_prints_one_document() -> None:
    done = membound("study", "calibration", "--json")
    assert done.returncode == 0, done.stderr
    assert {error["law"] for error in json.loads(done.stdout)["errors"]} == LAWS


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    done = membound("study", "calibration", "--out", str(tmp_path / "taken" / "out"))
    assert done.returncode == 1
    assert "--out" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_measuring_script_runs_dry_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out = tmp_path / "kernels.csv"
    command = [sys.executable, "-W", "ignore", str(ROOT / "validation" / "measure_kernels.py"), str(out), "--dry", "--only", "bmm,pointwise"]
    subprocess.run(command, check=True, capture_output=True)
    first = out.read_text()
    subprocess.run(command, check=True, capture_output=True)
    assert out.read_text() == first
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["op"] for row in rows if row["family"] == "done"] == ["bmm", "pointwise"]
    timed = [row for row in rows if row["family"] != "done"]
    assert not [row["notes"] for row in timed if "failed" in row["notes"]]
    assert all(float(row["seconds_cold"]) > 0 and float(row["bytes"]) > 0 for row in timed)
    assert json.loads(out.with_suffix(".json").read_text())["torch"]
