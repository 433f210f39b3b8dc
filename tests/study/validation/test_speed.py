"""The study of published speeds: every row has one outcome, units are read as the sources mean them, and the arithmetic of the exam holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from membound.errors import CaptureError, UnknownNameError
from membound.run.schema import Fits, Missing, Run, Value
from membound.spec import catalogue
from membound.study.validation.answered import Failed
from membound.study.validation.memory import mapping as memory_mapping
from membound.study.validation.memory import rows as memory_rows
from membound.study.validation.memory.outcome import Comparable
from membound.study.validation.outcome import LeftOut, machine_of
from membound.study.validation.speed import comparison, mapping, page, rows, statistics
from membound.study.validation.speed.comparison import Predicted, SpeedCompared, SpeedComparison, SpeedDone
from membound.study.validation.speed.outcome import EXAM, GROUPS, STEP, TOKENS, SpeedOutcome, Timed
from membound.study.validation.speed.result import SpeedResult, write
from membound.study.validation.speed.sources import shapes
from tests.commands import membound

ROWS = rows.read()
OUTCOMES = [mapping.outcome(row) for row in ROWS]
TIMED = [each for each in OUTCOMES if isinstance(each, Timed)]
LEFT_OUT = [each for each in OUTCOMES if isinstance(each, LeftOut)]


def timed(row_id: str) -> Timed:
    found = next(each for each in OUTCOMES if each.row.id == row_id)
    assert isinstance(found, Timed)
    return found


def compared(row_id: str, ratio: float, flops: float = 1e15, **changes: Any) -> SpeedCompared:
    """The row predicted `ratio` times as fast as was published, for a step of `flops` FLOP whose band is 10 % wide either way."""
    case = dataclasses.replace(timed(row_id), **changes)
    seconds = case.published / ratio if case.quantity == STEP else 1.0
    tokens = case.published * ratio if case.quantity == TOKENS else 1.0
    return SpeedCompared(case, catalogue.machine(case.machine).gpu.name, Predicted(seconds, seconds * 0.9, seconds * 1.1, tokens, flops))


Law = Callable[[Any], "float | str | Exception"]


class Oracle:
    """Predicts a step of `law(job)` seconds for everything; a text is the reason why there is no time; an error is raised."""

    def __init__(self, law: Law) -> None:
        self.law = law
        self.asked: list[str] = []

    def predict(self, job: Any, machine: Any, options: Any = None) -> Any:
        self.asked.append(job.model_dump_json() + json.dumps(dict(options or {})))
        answer = self.law(job)
        if isinstance(answer, Exception):
            raise answer
        values: dict[str, Value | Missing] = {name: Value(1e3, unit, 1e3, 1e3, "") for name, unit in ((TOKENS, "token/s"), ("flops.model", "FLOP"))}
        values[STEP] = Missing(answer) if isinstance(answer, str) else Value(answer, "s", answer * 0.9, answer * 1.1, "")
        return SimpleNamespace(run=Run("predicted", {}, {}, Fits(True, True), values, about={"versions": {"torch": "2.13.0"}}))


def compare(law: Law, outcomes: list[SpeedOutcome]) -> tuple[list[SpeedDone], Oracle]:
    oracle = Oracle(law)
    predictor: Any = oracle
    return SpeedComparison(predictor).compare(outcomes), oracle


class TestRows:
    def test_ids_are_unique_and_each_row_names_its_source(self) -> None:
        assert len({row.id for row in ROWS}) == len(ROWS) == 1186
        assert all(row.source and row.unit and row.metric and row.value > 0 for row in ROWS)

    def test_every_row_has_one_outcome_and_each_that_is_left_out_a_reason(self) -> None:
        assert [each.row for each in OUTCOMES] == ROWS
        assert len(TIMED) + len(LEFT_OUT) == len(ROWS)
        assert all(each.reason and each.detail for each in LEFT_OUT)

    def test_an_unknown_group_is_left_out_and_not_dropped(self) -> None:
        stranger = dataclasses.replace(ROWS[0], group="new")
        assert isinstance(mapping.outcome(stranger), LeftOut)

    @pytest.mark.parametrize("case", TIMED, ids=lambda case: case.row.id)
    def test_a_compared_row_is_whole(self, case: Timed) -> None:
        assert case.group in GROUPS
        assert case.unit
        assert case.quantity in {STEP, TOKENS}
        assert machine_of(case).total_gpus == case.job.gpus
        catalogue.model_entry(case.job.model)

    @pytest.mark.parametrize("case", [case for case in TIMED if case.row.micro_batch], ids=lambda case: case.row.id)
    def test_what_the_source_states_is_what_is_asked(self, case: Timed) -> None:
        assert case.job.recipe.micro_batch == case.row.micro_batch
        assert case.job.gpus == case.row.gpus
        assert case.row.seq_len is None or case.job.data.cap == case.row.seq_len
        assert case.row.accumulation is None or case.job.recipe.accumulation == case.row.accumulation

    def test_a_run_whose_memory_is_compared_too_is_one_job(self) -> None:
        memory = {each.row.id: each for each in map(memory_mapping.outcome, memory_rows.read()) if isinstance(each, Comparable)}
        allocated, speed = memory["FMSACC-295"], timed("FMSACC-297")
        assert (allocated.job, allocated.machine, allocated.options) == (speed.job, speed.machine, speed.options)

    def test_no_reading_counts_twice(self) -> None:
        runs = [(case.row.group, case.row.id) for case in TIMED]
        assert len(set(runs)) == len(runs)
        assert {row.metric for row in (case.row for case in TIMED)}.isdisjoint({"mfu", "hfu", "model_tflops_per_gpu", "tflops_per_gpu"})


class TestUnits:
    @pytest.mark.parametrize(
        ("row", "quantity", "published"),
        [
            ("FMSACC-297", TOKENS, 3299.86),  # tok/s of one GPU
            ("QWEN-083", STEP, 5.2),  # s/iter of 8 micro-batches
            ("LITGPT-022", STEP, 2.36 * 60 / 1000 * 128),  # min for 1,000 micro-batches
            ("LLMF-117", TOKENS, 45455.0),
            ("OFFLOAD-016", STEP, 0.24),
            ("OFFLOAD-023", STEP, 3 * 3600 / 1219),  # h for the whole recipe
        ],
    )
    def test_as_the_source_means_them(self, row: str, quantity: str, published: float) -> None:
        assert (timed(row).quantity, timed(row).published) == (quantity, pytest.approx(published))

    @pytest.mark.parametrize(("value", "half"), [(1.1, 0.05 / 1.1), (2.09, 0.005 / 2.09), (4.0, 0.05 / 4)])
    def test_the_last_digit_is_uncertain_by_half(self, value: float, half: float) -> None:
        assert rows.rounding(value) == pytest.approx(half)

    def test_the_network_is_the_one_that_the_source_names(self) -> None:
        assert machine_of(timed("FMS-017")).links.network == pytest.approx(50e9 / 8)
        assert machine_of(timed("FMS-019")).links.network == pytest.approx(100e9 / 8)

    def test_two_servers_are_two_nodes(self) -> None:
        assert [(machine_of(timed(row)).nodes, machine_of(timed(row)).gpus) for row in ("QWEN-141", "QWEN-219")] == [(2, 2), (1, 4)]


class TestPrograms:
    def test_zero_3_computes_with_adapters_of_the_type_that_peft_made(self) -> None:
        assert [timed(row).job.recipe.precision for row in ("QWEN-219", "QWEN-141", "QWEN-129")] == ["bf16", "bf16-mixed", "bf16-mixed"]


# Parameters at 2,048 tokens, as mosaicml/llm-foundry scripts/train/benchmarking/README.md (061f2c7c) prints them.
PRINTED = {
    "mpt-760m": 760470528, "mpt-1b": 1315950592, "mpt-3b": 2651837440, "mpt-7b": 6658859008, "mpt-13b": 12853954560, "mpt-30b": 29975214080,
    "mpt-70b": 64862437376,
}  # fmt: skip


class TestShapes:
    @pytest.mark.parametrize(("name", "parameters"), PRINTED.items())
    def test_parameters_are_those_that_the_source_prints(self, name: str, parameters: int) -> None:
        config = catalogue.model_entry(shapes.path(name)).config
        width, layers = config["n_embd"], config["n_layer"]
        layer = 12 * width**2 + 13 * width  # four matrices of attention, two of 4 times the width; their biases; two norms
        assert layers * layer + 2 * width + (config["vocab_size"] + 2048) * width == parameters

    def test_an_unknown_shape_is_refused(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean mpt-1b"):
            shapes.path("mpt1b")

    def test_every_shape_is_used(self) -> None:
        assert {Path(case.job.model).stem for case in TIMED if case.job.model.endswith(".json")} == set(shapes.names())


class TestComparison:
    def test_no_row_is_dropped_whatever_its_job_meets(self) -> None:
        done, _ = compare(lambda job: CaptureError("no") if job.recipe.engine == "fsdp" else 1.0, OUTCOMES)
        assert [each.row if isinstance(each, LeftOut) else each.case.row for each in done] == ROWS
        failed = [each for each in done if isinstance(each, Failed)]
        assert {each.case.job.recipe.engine for each in failed} == {"fsdp"}

    def test_a_time_that_cannot_be_had_fails_with_its_reason(self) -> None:
        done, _ = compare(lambda job: "not priced yet", [timed("QWEN-083")])
        assert [each.error for each in done if isinstance(each, Failed)] == ["step.time: not priced yet"]

    def test_one_prediction_serves_all_rows_of_a_job(self) -> None:
        _, oracle = compare(lambda job: 1.0, [timed("OFFLOAD-013"), timed("OFFLOAD-014")])
        assert len(oracle.asked) == 1

    def test_rows_of_one_job_are_predicted_together_the_exam_first(self) -> None:
        ordered = comparison.most_served_first(TIMED)
        assert sorted(case.row.id for case in ordered) == sorted(case.row.id for case in TIMED)
        exam = [case.group in EXAM for case in ordered]
        assert exam == sorted(exam, reverse=True)

    def test_groups_can_be_asked_for(self) -> None:
        assert {each.group for each in comparison.outcomes(["qwen"]) if isinstance(each, Timed)} == {"qwen"}
        assert len(comparison.outcomes()) == len(ROWS)

    @pytest.mark.parametrize("row", ["QWEN-083", "FMSACC-297"])
    def test_the_ratio_is_of_speeds_whatever_was_printed(self, row: str) -> None:
        assert compared(row, 1.25).ratio == pytest.approx(1.25)
        assert not compared(row, 1.25).inside
        assert compared(row, 1.05).inside


class TestStatistics:
    def test_errors_of_a_hand_made_table(self) -> None:
        found = statistics.errors([1.1] * 8 + [0.8, 1.5])
        assert (found.count, found.mean, found.tail) == (10, pytest.approx(0.15), pytest.approx(0.2))
        assert (found.bias, found.worst) == (pytest.approx(0.11), pytest.approx(0.5))

    def test_the_trivial_predictor_never_sees_the_rows_own_source(self) -> None:
        done = [compared("FMSACC-297", 1.0, 1e15), compared("FMSACC-303", 1.0, 9e15), compared("LLMF-177", 1.0, 2e15)]
        ratios = statistics.trivial_ratios(done)
        # Rates are per step of 1 s: the other source's median over what the row itself achieved.
        assert ratios == pytest.approx({"FMSACC-297": 2.0, "FMSACC-303": 2 / 9, "LLMF-177": 5 / 2})

    def test_a_gpu_of_one_source_has_no_trivial_prediction(self) -> None:
        found = statistics.by_group([compared("LLMF-117", 1.05), compared("LLMF-119", 0.95)])
        only = found["llm-foundry", "full", "h100-sxm"]
        assert (only.trivial, only.met) == (None, True)

    def test_a_group_that_is_no_better_than_the_trivial_predictor_misses(self) -> None:
        done = [compared("FMSACC-297", 1.05, 1e15), compared("LLMF-177", 1.05, 1e15)]
        assert [each.met for each in statistics.by_group(done).values()] == [False, False]

    @pytest.mark.parametrize("ratios", [[1.11, 0.89], [1.06, 1.06], [1.0] * 8 + [1.21, 1.21]])
    def test_each_limit_can_be_missed(self, ratios: list[float]) -> None:
        done = [compared("LLMF-117", ratio) for ratio in ratios]
        assert not statistics.by_group(done)["llm-foundry", "full", "h100-sxm"].met

    def test_the_floor_comes_from_recipes_measured_twice(self) -> None:
        pairs = statistics.repeats(ROWS)
        assert len(pairs) == 25
        assert all((pair.first.model, pair.first.micro_batch) == (pair.second.model, pair.second.micro_batch) for pair in pairs)
        assert max(pair.difference for pair in pairs) == pytest.approx(0.1087, abs=1e-4)


class TestOutput:
    @pytest.fixture
    def result(self) -> SpeedResult:
        done, _ = compare(lambda job: CaptureError("no | way") if job.recipe.engine == "fsdp" else 1.0, OUTCOMES)
        return SpeedResult(tuple(done), {"torch": "2.13.0"}, tuple(statistics.repeats(ROWS)))

    def test_the_tables_hold_every_row(self, result: SpeedResult, tmp_path: Path) -> None:
        write(result, tmp_path / "out" / "speed", page.page(result))
        table = pq.read_table(tmp_path / "out" / "speed" / "rows.parquet").to_pylist()
        assert [row["id"] for row in table] == [row.id for row in ROWS]
        assert {row["outcome"] for row in table} == {"compared", "failed", "left out"}
        assert all(row["reason"] for row in table if row["outcome"] != "compared")
        document = json.loads((tmp_path / "out" / "speed" / "validation.json").read_text())
        assert sum(each["rows"] for each in document["left_out"]) == len(LEFT_OUT)
        assert sum(len(each["rows"]) for each in document["failed"]) == len(result.failed)

    def test_the_page_names_every_row_that_was_compared_misses_first(self, result: SpeedResult) -> None:
        text = page.page(result)
        assert not [each.case.row.id for each in result.compared if f"| {each.case.row.id} |" not in text]
        assert text.index("## Agreement") < text.index("## Misses") < text.index("## Failed") < text.index("## The floor") < text.index("## Left out")
        assert "no \\| way" in text

    def test_an_empty_study_still_has_a_page(self) -> None:
        assert page.page(SpeedResult((), {})).startswith("# Validation: speed")

    def test_people_get_tables(self, result: SpeedResult, capsys: pytest.CaptureFixture[str]) -> None:
        from membound.cli import output, speed_tables

        output.show(speed_tables.speed(result))
        printed = capsys.readouterr().out
        assert f"{len(ROWS)} published speeds" in printed
        assert "the floor: 25 recipes" in printed

    def test_one_part_can_be_run_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        from membound.cli.study import study
        from membound.study.predicting import Predictor

        oracle = Oracle(lambda job: 0.25)
        monkeypatch.setattr(Predictor, "predict", lambda self, job, machine, options: oracle.predict(job, machine, options))
        study("validation", out=tmp_path / "out", as_json=True, group=["deepspeed-offload"], only="speed")
        printed = capsys.readouterr()
        document = json.loads(printed.out)
        assert document.keys() == {"schema", "speed"}
        assert document["speed"] == json.loads((tmp_path / "out" / "speed" / "validation.json").read_text())
        assert {row["id"]: row["ratio"] for row in document["speed"]["rows"]}["OFFLOAD-016"] == pytest.approx(0.24 / 0.25)
        assert "OFFLOAD-016: Qwen2.5-1.5B" in printed.err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [(["--only", "spede"], "did you mean speed?"), (["--only", "memory", "--group", "llm-foundry"], "--group: 'llm-foundry'")],
    )
    def test_a_wrong_part_is_one_line(self, arguments: list[str], words: str) -> None:
        done = membound("study", "validation", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
