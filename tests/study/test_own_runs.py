"""Our own measured runs beside prediction: what is read, what is compared, and how errors are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from membound.errors import RecordError
from membound.study import own_runs, own_runs_page
from membound.study.own_runs import OwnRun
from membound.study.predicting import Predictor

ROOT = Path(__file__).resolve().parents[2]


def record(name: str, step: float | None, tiny_job: Any) -> dict[str, Any]:
    values = {
        "step.time": {"value": step, "unit": "s"} if step is not None else {"missing": "it was killed"},
        "gpu.busy": {"value": 0.95, "unit": "1"},
    }
    about = {"versions": {"torch": "2.11.0"}, "ranks": {"0": {"gpu": "a GPU"}}, "ended": {"how": "killed", "said": "killed by its time limit"}}
    run = {"origin": "measured", "job": tiny_job.model_dump(mode="json"), "machine": {"name": "rtx-4090"}, "values": values, "about": about}
    return {"name": name, "run": run}


def written(folder: Path, *records: dict[str, Any], file: str = "results-1.jsonl") -> Path:
    (folder / file).write_text("".join(json.dumps(each) + "\n" for each in records))
    return folder


def test_the_later_file_counts_and_what_timed_nothing_is_named(tmp_path: Path, tiny_job: Any) -> None:
    written(tmp_path, record("a", 9.0, tiny_job), record("b", None, tiny_job))
    written(tmp_path, record("a", 0.5, tiny_job), file="results-2.jsonl")
    first, second = own_runs.compare(tmp_path, Predictor(), lambda _: None)
    assert first.file == "results-2.jsonl"
    measured, predicted, low, high = first.pairs["step.time"]
    assert measured == 0.5
    assert low <= predicted <= high
    assert first.ratio("step.time") == predicted / measured
    assert first.bound_by_gpu
    assert second.why == "killed by its time limit"
    assert not second.pairs
    text = own_runs_page.page([first, second])
    assert "| a |" in text
    assert "`b`: killed by its time limit" in text


def test_errors_are_signed_where_they_are_worst() -> None:
    runs = [OwnRun(str(n), "", {}, "", {"step.time": (1.0, 1.0 + off, 0.9, 1.1)}) for n, off in enumerate((0.1, -0.3, 0.05))]
    found = own_runs.errors(runs, "step.time")
    assert found is not None
    assert found.count == 3
    assert found.mean == pytest.approx(0.15)
    assert found.worst == pytest.approx(-0.3)
    assert found.inside == 3
    assert own_runs.errors(runs, "gpu.power.mean") is None


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(RecordError, match="not documents of measured Runs"):
        own_runs.compare(tmp_path, Predictor(), lambda _: None)


def test_the_runs_that_ship_are_whole() -> None:
    names = [json.loads(line)["name"] for file in sorted((ROOT / "validation/h100").glob("results*.jsonl")) for line in file.read_text().splitlines()]
    assert len(set(names)) >= 24
