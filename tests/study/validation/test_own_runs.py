"""Our own measured runs beside prediction: what is read, what is compared, and how errors are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from membound.errors import RecordError
from membound.spec import catalogue
from membound.spec.job import Job
from membound.study.predicting import Predictor
from membound.study.validation.own_runs import alike, asked, comparison, page
from membound.study.validation.own_runs.comparison import OwnRun

ROOT = Path(__file__).resolve().parents[3]


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
    first, second = comparison.compare(tmp_path, Predictor(), lambda _: None)
    assert first.file == "results-2.jsonl"
    measured, predicted, low, high = first.pairs["step.time"]
    assert measured == 0.5
    assert low <= predicted <= high
    assert first.ratio("step.time") == predicted / measured
    assert first.bound_by_gpu
    assert first.before == (9.0,)
    assert second.why == "killed by its time limit"
    assert not second.pairs
    text = page.page([first, second])
    assert "| a |" in text
    assert "| a | yes | 9.00 s, 500 ms | 1700.0% |" in text
    assert "`b`: killed by its time limit" in text


@pytest.mark.parametrize(("version", "compared"), [("5.17.0", False), ("5.20.1", False), ("5.21.0", True), ("6.0.0", True), ("", True)])
def test_a_job_whose_model_was_another_program_then_is_not_compared(version: str, compared: bool) -> None:
    """Gemma 2 ran its attention fused, without its soft cap, until Transformers 5.21: 38.3 GiB where the code of today takes 49.4."""
    why = comparison._other_program("gemma-2-9b", {"transformers": version})
    assert (why == "") == compared
    assert comparison._other_program("llama-7b", {"transformers": version}) == ""


def test_errors_are_signed_where_they_are_worst() -> None:
    runs = [OwnRun(str(n), "", {}, "", {"step.time": (1.0, 1.0 + off, 0.9, 1.1)}) for n, off in enumerate((0.1, -0.3, 0.05))]
    found = comparison.errors(runs, "step.time")
    assert found is not None
    assert found.count == 3
    assert found.mean == pytest.approx(0.15)
    assert found.worst == pytest.approx(-0.3)
    assert found.inside == 3
    assert comparison.errors(runs, "gpu.power.mean") is None


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(RecordError, match="not documents of measured Runs"):
        comparison.compare(tmp_path, Predictor(), lambda _: None)


def test_the_runs_that_ship_are_whole() -> None:
    for folder in (ROOT / "validation/h100", ROOT / "validation/h200"):
        names = [json.loads(line)["name"] for file in sorted(folder.glob("results*.jsonl")) for line in file.read_text().splitlines()]
        assert len(set(names)) >= 24


def test_bytes_are_a_rate_times_the_mean_time_of_the_same_steps_unless_a_repetition_counted_them(tmp_path: Path, tiny_job: Any) -> None:
    rows = tiny_job.recipe.micro_batch * tiny_job.recipe.accumulation * tiny_job.gpus
    rate = {"hbm.bandwidth.mean": {"value": 1e12}, "samples.rate": {"value": rows / 0.6}}
    both = {f"hbm.traffic.{way}": {"value": amount, "low": amount, "high": amount} for way, amount in (("read", 4e11), ("write", 1e11))}
    records = [record(name, 0.5, tiny_job) for name in ("rated", "counted", "counted@pm", "bare")]
    for each, values in zip(records, (rate, rate, {**rate, **both}, {}), strict=True):
        each["run"]["values"] |= values
    by_name = {run.name: run for run in comparison.compare(written(tmp_path, *records), Predictor(), lambda _: None)}
    assert set(by_name) == {"rated", "counted", "bare"}, "a repetition is no run of its own"
    measured, predicted, low, high = by_name["rated"].pairs[comparison.TRAFFIC]
    assert measured == pytest.approx(0.6e12)
    assert 0 < low < predicted < high
    assert by_name["counted"].pairs[comparison.TRAFFIC][0] == pytest.approx(5e11)
    assert comparison.TRAFFIC not in by_name["bare"].pairs
    assert asked.gpm(list(by_name.values())) == "**missed**: 20.0% (0 of 1 within)"
    assert "zero-3 with offload" in asked.not_there(list(by_name.values()))
    assert "full" not in asked.not_there(list(by_name.values()))


def test_what_was_asked_is_met_or_missed_by_name() -> None:
    off = {"near": 0.01, "far": -0.13}
    runs = [OwnRun(name, "", {}, "", {"step.time": (1.0, 1.0 + by, 0.9, 1.1), "gpu.busy": (0.95, 1.0, 0.9, 1.0)}) for name, by in off.items()]
    by_text = {each.says: asked.verdict(each, runs) for each in asked.ASKED}
    assert by_text["step time within 8 % in the mean"] == "met: 7.0% (1 of 2 within)"
    assert by_text["HBM bytes within 15 %"] == "-"
    assert asked.verdict(asked.Asked("", "step.time", "worst", 0.08), runs) == "**missed**: 13.0% (1 of 2 within)"
    verdicts = " | ".join(["met: 7.0% (1 of 2 within)"] * 3)
    assert f"| step time within 8 % in the mean | {verdicts} |" in page.page(runs)


def test_the_host_that_measured_is_told_beside_the_runs(tmp_path: Path, tiny_job: Any) -> None:
    written(tmp_path, record("a", 0.5, tiny_job))
    plain = comparison.compare(tmp_path, Predictor(), lambda _: None)[0]
    (tmp_path / comparison.HOST).write_text(json.dumps({"settings": {"host.call_time": 50.0}, "why": "a slow one"}))
    slow = comparison.compare(tmp_path, Predictor(), lambda _: None)[0]
    assert slow.pairs["step.time"][1] > 2 * plain.pairs["step.time"][1]
    (tmp_path / comparison.HOST).write_text("[1")
    with pytest.raises(RecordError, match=r"host\.json: not a JSON object"):
        comparison.compare(tmp_path, Predictor(), lambda _: None)


def test_bytes_that_the_counters_told_go_before_a_rate(tmp_path: Path, tiny_job: Any) -> None:
    each = record("a", 0.5, tiny_job)
    each["run"]["values"] |= {"hbm.utilisation.mean": {"value": 0.5}, "samples.rate": {"value": tiny_job.recipe.micro_batch / 0.5}}
    (tmp_path / comparison.COUNTS).write_text(json.dumps({"a": {"read": 1.5e11, "write": 1e11}}))
    found = comparison.compare(written(tmp_path, each), Predictor(), lambda _: None)[0]
    assert found.counted == 2.5e11
    assert found.pairs[comparison.TRAFFIC][0] == 2.5e11
    peak = catalogue.machine("rtx-4090").gpu.hbm.bandwidth
    assert found.rated == pytest.approx(0.5 * peak * 0.5 * tiny_job.recipe.accumulation * tiny_job.gpus)


def test_a_page_has_its_machines_apart() -> None:
    runs = [OwnRun(gpu, "", {}, gpu, {"step.time": (1.0, 1.1, 0.9, 1.3)}) for gpu in ("H100", "H200")]
    text = page.page(runs)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## H100: 1 runs", "## H200: 1 runs", "## Every run on H100, misses of the step's time first",
        "## Every run on H200, misses of the step's time first",
    ]  # fmt: skip


def test_a_hosts_pace_beside_the_job_goes_before_what_is_typical(tmp_path: Path, tiny_job: Any) -> None:
    host = {"settings": {"host.call_time": 1.0}, "layers": {"a model": 1e-3, "another": 2e-3, "not measured": 1.0}}
    (tmp_path / comparison.HOST).write_text(json.dumps(host))
    layers = {"a model": {"mean": 40e-3}, "another": {"mean": 120e-3}}
    beside = {**record("beside", 0.5, tiny_job), "pace": [{"layers": layers}, {"layers": layers}]}
    written(tmp_path, record("alone", 0.5, tiny_job), beside, {**record("failed", 0.5, tiny_job), "pace": [None, None]})
    found = {run.name: run.pairs["step.time"][1] for run in comparison.compare(tmp_path, Predictor(), lambda _: None)}
    assert found["failed"] == found["alone"]
    assert found["beside"] > 5 * found["alone"]


def test_time_in_which_nothing_runs_counts_in_every_mean() -> None:
    def told(value: float) -> dict[str, Any]:
        return {"value": value, "low": value / 2, "high": value * 2, "unit": "any"}

    values = {"step.time": told(0.1), "gpu.busy": told(0.9), "gpu.power.mean": told(500.0), "gpu.energy.step": told(50.0), "hbm.traffic": told(1e9)}
    found = alike.waiting(values, 0.3, 100.0)
    assert set(found) == set(values) - {"hbm.traffic"}
    assert found["step.time"] == {"value": pytest.approx(0.4), "low": pytest.approx(0.35), "high": pytest.approx(0.5), "unit": "any"}
    assert found["gpu.busy"]["value"] == pytest.approx(0.225)
    assert found["gpu.power.mean"]["value"] == pytest.approx(200.0)
    # Energy is power over time, with what was added as without.
    assert found["gpu.energy.step"]["value"] == pytest.approx(found["gpu.power.mean"]["value"] * found["step.time"]["value"])


@pytest.mark.parametrize(("steps", "feed", "met"), [(43, "rows", 405), (300, "rows", 512), (43, "planned", 512), (None, "rows", 512)])
def test_memory_is_compared_at_the_longest_row_that_a_run_met(steps: int | None, feed: str, met: int) -> None:
    written = {"model": "tiny", "data": {"lengths": "alpaca", "max_length": 512}, "recipe": {"micro_batch": 4}, "gpus": 1}
    assert alike.longest_met(Job.model_validate(written), {"options": {"steps": steps, "feed": feed}}) == met


@pytest.mark.parametrize(("gpus", "paced", "expected"), [(1, False, 1.2), (2, False, 1.32), (2, True, 2.0)])
def test_of_two_ranks_the_slower_counts_where_nobody_measured_their_pace(gpus: int, paced: bool, expected: float) -> None:
    host = {"settings": {"host.call_time": 1.2}, "slower_of_two": 1.1, "layers": {"llama bf16": 0.001}}
    record: dict[str, Any] = {"run": {"job": {"gpus": gpus}}, "pace": [{"layers": {"llama bf16": {"mean": 0.002}}}] if paced else None}
    assert comparison._host_of(record, host) == {"host.call_time": pytest.approx(expected)}
    assert host["settings"] == {"host.call_time": 1.2}


def test_a_run_of_what_is_another_program_by_now_is_told_with_its_reason(tmp_path: Path, tiny_job: Any) -> None:
    (tmp_path / comparison.LEFT_OUT).write_text(json.dumps({"old": "pooled in another way"}))
    written(tmp_path, record("old", 0.5, tiny_job), record("new", 0.5, tiny_job))
    by_name = {run.name: run for run in comparison.compare(tmp_path, Predictor(), lambda _: None)}
    assert by_name["old"].why == "pooled in another way"
    assert not by_name["old"].pairs
    assert by_name["new"].pairs
