"""Two Runs side by side: what is alike is compared, what is not is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from membound.errors import UnlikeError
from membound.run import store
from membound.run.schema import Fits, Missing, Origin, Run, Value
from membound.spec import catalogue
from membound.spec.job import Job
from membound.study.compare import compare
from tests.commands import from_nothing, membound

PEAK, STEP = "gpu.memory.allocated.peak", "step.time"


def run(origin: Origin, peak: float, step: float | None = None, **changes: Any) -> Run:
    """A Run of the tiny job on one H100, its band a tenth either way where it is predicted."""
    job = Job.model_validate({"model": "tiny", "data": {"seq_len": 256}, "recipe": {"micro_batch": 2}, **changes}).model_dump(mode="json")
    wide = 0.1 if origin == "predicted" else 0.0
    values: dict[str, Value | Missing] = {PEAK: Value(peak, "B", peak * (1 - wide), peak * (1 + wide), "a test"), STEP: Missing("not tried")}
    if step is not None:
        values[STEP] = Value(step, "s", step * (1 - wide), step * (1 + wide), "a test")
    return Run(origin, job, catalogue.machine("h100-sxm").model_dump(mode="json"), Fits(True, True), values)


def test_ratios_are_of_the_second_over_the_first() -> None:
    rows = {row.name: row for row in compare(run("measured", 100.0, 2.0), run("measured", 150.0, 1.0)).rows}
    assert (rows[PEAK].ratio, rows[STEP].ratio) == (1.5, 0.5)
    assert rows[PEAK].inside is None  # nothing here was predicted


@pytest.mark.parametrize(("measured", "inside"), [(100.0, True), (109.0, True), (91.0, True), (111.0, False), (89.0, False)])
@pytest.mark.parametrize("truth", ["measured", "published"])
def test_what_was_observed_lies_in_the_predicted_band_or_not(measured: float, inside: bool, truth: Origin) -> None:
    predicted, observed = run("predicted", 100.0), run(truth, measured)
    for found in (compare(predicted, observed), compare(observed, predicted)):
        assert {row.name: row.inside for row in found.rows} == {PEAK: inside, STEP: None}
        assert (found.judged, found.inside) == (1, int(inside))


def test_a_missing_value_is_never_a_ratio() -> None:
    found = compare(run("measured", 100.0, 1.0), run("predicted", 100.0))
    row = next(row for row in found.rows if row.name == STEP)
    assert (row.ratio, row.inside) == (None, None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": "gpt2"}, "model: tiny against gpt2"),
        ({"data": {"seq_len": 512}}, "data.seq_len: 256 against 512"),
        ({"recipe": {"micro_batch": 4}}, "recipe.micro_batch: 2 against 4"),
        ({"recipe": {"micro_batch": 2, "engine": "ddp"}, "gpus": 2}, "recipe.engine: none against ddp"),
    ],
)
def test_unlike_jobs_are_refused_by_name_unless_asked(changes: dict[str, Any], told: str) -> None:
    one, other = run("measured", 1.0), run("measured", 1.0, **changes)
    with pytest.raises(UnlikeError, match=told):
        compare(one, other)
    assert told in compare(one, other, unlike=True).differences


@pytest.mark.parametrize("changes", [{"recipe": {"micro_batch": 2, "learning_rate": 0.1}}, {"machine": "h100-sxm"}])
def test_what_changes_nothing_is_no_difference(changes: dict[str, Any]) -> None:
    assert compare(run("measured", 1.0), run("measured", 1.0, **changes)).differences == ()


def test_other_machines_are_refused() -> None:
    one = run("measured", 1.0)
    for name, told in {"h200": "machine.gpu.name: h100-sxm against h200", "hgx-h100": "machine.gpus: 1 against 8"}.items():
        with pytest.raises(UnlikeError, match=told):
            compare(one, dataclasses.replace(one, machine=catalogue.machine(name).model_dump(mode="json")))
    with pytest.raises(UnlikeError, match=r"machine.gpu.name: h100-sxm against none"):
        compare(one, dataclasses.replace(one, machine={"name": "this machine", "gpus": 0}))


def test_a_watched_command_is_no_job() -> None:
    one = run("measured", 1.0)
    with pytest.raises(UnlikeError, match="command: none against"):
        compare(one, dataclasses.replace(one, job={"command": ["true"]}))


class TestCommandLine:
    def test_json_and_table(self, tmp_path: Path) -> None:
        store.write(run("measured", 100.0, 1.0), tmp_path / "a")
        store.write(run("predicted", 104.0, 2.0), tmp_path / "b")
        command = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
        done = from_nothing(*command, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        document = json.loads(done.stdout)
        assert document["values"][PEAK] | {"first": 0, "second": 0} == {"first": 0, "second": 0, "ratio": 1.04, "inside": True}
        assert (document["judged"], document["inside"]) == (2, 1)
        done = membound(*command)
        assert "1 of 2 observed values lie inside the predicted band" in done.stdout

    def test_unlike_runs_are_one_line(self, tmp_path: Path) -> None:
        store.write(run("measured", 1.0), tmp_path / "a")
        store.write(run("measured", 1.0, model="gpt2"), tmp_path / "b")
        command = ["compare", str(tmp_path / "a"), str(tmp_path / "b")]
        done = membound(*command)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "membound: these runs differ in model: tiny against gpt2: compare like with like, or write --unlike\n"
        assert membound(*command, "--unlike").returncode == 0
