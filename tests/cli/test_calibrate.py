"""`membound calibrate` as people start it: in a real process, on a computer without a GPU."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests import commands

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "validation" / "kernels" / "h100-sxm.csv"
# The names that membound/measure/calibrate/worker.py gives its families.
FAMILIES = {
    "host", "copies", "pointwise", "matmul", "attention", "reductions", "optimizers", "bmm", "indexing", "quantised", "collectives", "vision"
}  # fmt: skip


def membound(*arguments: str, profiles: Path) -> subprocess.CompletedProcess[str]:
    """`membound` with `arguments`, no GPU to be seen, `profiles` the user's own."""
    return commands.membound(*arguments, folder=profiles, CUDA_VISIBLE_DEVICES="", MEMBOUND_PROFILES=str(profiles))


@pytest.fixture
def calibrated(tmp_path: Path) -> Path:
    """The user's profiles after a calibration from an H100's rows."""
    done = membound("calibrate", "--rows", str(ROWS), profiles=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path


def test_a_dry_run_measures_every_family_and_keeps_nothing(tmp_path: Path) -> None:
    done = membound("calibrate", "--dry", "--json", profiles=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {line.split(":")[0] for line in done.stderr.splitlines()} == FAMILIES
    assert document["rows"] > 1000
    assert document["failed"] == []
    assert document["left_out"] == []
    assert set(document["profile"]) == {"missing"}
    assert list(tmp_path.iterdir()) == []


def test_without_a_gpu_it_is_one_line(tmp_path: Path) -> None:
    done = membound("calibrate", profiles=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "--dry" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seconds", "soon"),
        ("--seconds", "3"),
        ("--dry", "--out", "x.yaml"),
        ("--dry", "--rows", str(ROWS)),
        ("--rows", "nowhere.csv"),
        ("--rows", str(ROWS), "--out", "."),
        ("--rows", str(ROWS), "--out", "profile.txt"),
        ("--rows", str(ROWS), "--machine", "h100"),
        ("--rows", str(ROWS), "--machine", "b200"),
    ],
)
def test_what_makes_no_sense_is_refused_with_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = membound("calibrate", *arguments, profiles=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("*.yaml"))


def test_predictions_use_the_profile_and_name_it(calibrated: Path) -> None:
    job = str(ROOT / "examples" / "tiny.yaml")
    done = membound("predict", job, "--machine", "h100-sxm", "--json", profiles=calibrated)
    assert done.returncode == 0, done.stderr
    assert str(calibrated / "h100-sxm.yaml") in json.loads(done.stdout)["values"]["step.time"]["basis"]


def test_the_document_holds_the_profile(tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "mine.yaml"
    document = json.loads(membound("calibrate", "--rows", str(ROWS), "--out", str(out), "--json", profiles=tmp_path).stdout)
    assert (document["path"], document["used_by_predictions"], document["gpu"]) == (str(out), False, "h100-sxm")
    assert out.exists()
    families = document["profile"]["families"]
    assert families["pointwise"]["kernels"] > 50
    assert 0.8 < families["pointwise"]["efficiency"] < 1
    # This file's packing of 4-bit weights failed for want of the package.
    assert {"quantisation", "optimizer_8bit"} <= set(document["profile"]["unmeasured"])
    assert document["failed"]


def test_a_person_reads_what_was_measured_and_where_it_is(calibrated: Path) -> None:
    said = membound("calibrate", "--rows", str(ROWS), profiles=calibrated).stdout
    kept = " ".join(said.split()).partition("not measured, as before: ")[2].partition(" written to ")[0].split(", ")
    # Batch norm of half precision, bags and sums over many rows are younger than this file.
    assert {"cudnn_batch_norm", "cudnn_batch_norm_backward", "bag", "reduction_narrow", "quantisation"} <= set(kept)
    assert f"written to {calibrated / 'h100-sxm.yaml'}; predictions for h100-sxm use it from now on" in said


def test_a_damaged_profile_is_one_line_and_tells_the_cure(calibrated: Path) -> None:
    (calibrated / "h100-sxm.yaml").write_text("schema: 0\n")
    done = membound("calibrate", "--rows", str(ROWS), profiles=calibrated)
    assert done.returncode == 1
    assert "delete it and calibrate again" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
