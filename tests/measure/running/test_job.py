"""A Job run for real on the CPU: it learns, and its Run is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest

import membound
from membound.run import quantities
from membound.run.schema import Missing, Run, Value
from membound.run.series import CURVE_TABLE, MARK_TABLE

from .conftest import measure


def test_the_loss_falls(run: Run) -> None:
    losses = run.about["losses"]
    assert len(losses) == 12
    assert losses[-1] < losses[0]


def test_every_quantity_is_measured_or_missing_with_its_reason(run: Run) -> None:
    assert list(run.values) == list(quantities.QUANTITIES)
    for value in run.values.values():
        assert value.reason if isinstance(value, Missing) else value.basis


def test_what_a_cpu_can_tell_is_told(run: Run) -> None:
    known = {name for name, value in run.values.items() if isinstance(value, Value)}
    assert known >= {
        "host.memory.capacity", "host.memory.used.peak", "host.memory.pageable.peak", "step.time", "step.time.forward", "step.time.backward",
        "step.time.optimizer", "tokens.rate", "tokens.rate.useful", "samples.rate", "model.parameters",
    }  # fmt: skip
    assert run.number("model.parameters") == 158_016
    # Steps that are over within a second may fall between two samples of the host.
    processor = run.values["cpu.utilisation.mean"]
    assert isinstance(processor, Value) or processor.reason


def test_what_is_of_a_gpu_is_missing(run: Run) -> None:
    gpu = {name: value for name, value in run.values.items() if name.startswith(("gpu.", "hbm.", "pcie.", "nvlink."))}
    assert all(isinstance(value, Missing) for value in gpu.values())


def test_rates_follow_from_what_was_fed(run: Run) -> None:
    tokens, samples = run.number("tokens.rate"), run.number("samples.rate")
    assert tokens is not None
    assert samples is not None
    assert tokens == pytest.approx(samples * 256)
    assert run.number("tokens.rate.useful") == tokens  # fixed rows have no padding


def test_parts_of_a_step_fit_into_it(run: Run) -> None:
    step = run.values["step.time"]
    assert isinstance(step, Value)
    assert step.low <= step.value <= step.high
    parts = [run.number(f"step.time.{part}") or 0.0 for part in ("forward", "backward", "optimizer")]
    assert 0 < sum(parts) <= step.high


def test_warm_up_does_not_count(run: Run) -> None:
    assert run.about["counted_steps"] == 12 - run.about["options"]["warm_up"]


def test_marks_nest(run: Run) -> None:
    marks = run.tables["marks"]
    assert marks.schema == MARK_TABLE
    assert None not in marks["end"].to_pylist()
    steps = {row["step"]: row for row in marks.filter(pc.equal(marks["kind"], "step")).to_pylist()}
    assert sorted(steps) == list(range(12))
    inner = [row for row in marks.to_pylist() if row["kind"] != "step" and row["step"] >= 0]
    assert {row["micro"] for row in inner} == {0, 1}
    for row in inner:
        assert steps[row["step"]]["start"] <= row["start"] <= row["end"] <= steps[row["step"]]["end"]


def test_phases_are_those_of_the_program(run: Run) -> None:
    marks = run.tables["marks"]
    names = set(marks.filter(pc.equal(marks["kind"], "phase"))["name"].to_pylist())
    assert names == {"load", "prepare", "data", "forward", "backward", "optimizer"}


def test_samples_lie_on_the_clock_of_the_marks(run: Run) -> None:
    host, marks = run.tables["host"], run.tables["marks"]
    assert run.tables["curves"].schema == CURVE_TABLE
    first, last = pc.min(marks["start"]).as_py(), pc.max(marks["end"]).as_py()
    # The sampler is there before the job and after it.
    assert host["time"][0].as_py() <= first
    assert host["time"][-1].as_py() >= last - 1.0


def test_the_tree_of_processes_is_kept(run: Run) -> None:
    processes = run.tables["processes"]
    assert pc.max(processes["rss"]).as_py() > 50e6
    assert pc.max(processes["cpu_time"]).as_py() > 0


def test_raw_files_are_gone(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "tables"]


def test_the_door_loads_it(folder: Path, run: Run) -> None:
    assert membound.load(folder) == run


def test_the_door_measures(job: str, tmp_path: Path) -> None:
    asked = membound.Job.model_validate({"model": "tiny", "data": {"lengths": "alpaca", "max_length": 128}, "recipe": {"micro_batch": 4}})
    from membound.measure.plan import Options

    found = membound.measure(asked, tmp_path / "run", Options(steps=3, sampled=False))
    useful, fed = found.number("tokens.rate.useful"), found.number("tokens.rate")
    assert useful is not None
    assert fed is not None
    assert useful < fed  # rows of unlike lengths are padded
    power = found.values["gpu.power.mean"]
    assert isinstance(power, Missing)
    assert power.reason == "the sampler did not run"


def test_json_is_one_document_and_nothing_else(job: str, tmp_path: Path) -> None:
    done = measure(job, "--json", "--out", "run", "--steps", "2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["schema"], document["origin"]) == (1, "measured")
    assert document["fits"] == {"gpu": True, "host": True, "why": None}


def test_two_ranks_are_started_together(job: str, tmp_path: Path) -> None:
    done = measure(job, "--json", "--out", "run", "--steps", "3", "--set", "recipe.engine=ddp", "--set", "gpus=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = membound.load(tmp_path / "run")
    assert sorted(run.about["ranks"]) == ["0", "1"]
    assert set(run.tables["marks"]["rank"].to_pylist()) == {0, 1}
    tokens, samples = run.number("tokens.rate"), run.number("samples.rate")
    assert tokens is not None
    assert samples is not None
    assert tokens == pytest.approx(samples * 256 / 2)  # tokens are per rank, samples of all


def test_the_sampler_costs_what_repeated_runs_say(job: str, tmp_path: Path) -> None:
    from membound.measure.door import read_job
    from membound.measure.plan import Options
    from membound.study.measuring import measure_overhead

    found = measure_overhead(read_job(job), tmp_path / "run", Options(steps=4), repeats=1)
    noted = found.about["overhead"]
    (sampled,), (bare,) = noted["step_time_sampled_s"], noted["step_time_bare_s"]
    assert noted["share"] == pytest.approx(sampled / bare - 1)
    assert sampled == found.number("step.time")
    assert membound.load(tmp_path / "run").about["overhead"] == noted


def test_a_recorded_gpu_can_stand_beside_the_job(tmp_path: Path) -> None:
    """The whole path from sensors to values, with a recorded machine answering for the GPU."""
    from membound.measure.plan import Options
    from membound.measure.source import Source

    asked = membound.Job.model_validate({"model": "tiny", "data": {"seq_len": 512}, "recipe": {"micro_batch": 8}})
    found = membound.measure(asked, tmp_path / "run", Options(steps=20), source=Source("synthetic-h100"))
    assert found.tables["gpu"].num_rows > 0
    assert 70 < (found.number("gpu.power.mean") or 0.0) < 720
    assert (found.number("gpu.power.peak") or 0.0) >= (found.number("gpu.power.mean") or 0.0)
    energy, power, time = (found.number(name) or 0.0 for name in ("gpu.energy.step", "gpu.power.mean", "step.time"))
    assert energy > 0
    assert power * time > 0
    utilisation = found.values["hbm.utilisation.mean"]
    assert isinstance(utilisation, Value)
    assert utilisation.basis.startswith("gpm: ")
    traffic = found.values["hbm.traffic.read"]
    assert isinstance(traffic, Missing)
    assert "performance-monitor" in traffic.reason


@pytest.mark.parametrize("example", ["tiny.yaml", "tiny-alpaca.yaml"])
def test_the_examples_learn_on_any_computer(example: str, tmp_path: Path) -> None:
    path = Path(__file__).parents[3] / "examples" / example
    done = measure(str(path), "--json", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    losses = json.loads(done.stdout)["about"]["losses"]
    assert len(losses) == 20
    assert losses[-1] < losses[0] - 1.0
