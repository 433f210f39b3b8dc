"""The validation study: every published row has one outcome, units are read as the sources mean them, and the arithmetic of the exam holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from membound.errors import CaptureError, InputError, RecordError
from membound.run.schema import Fits, Run, Value
from membound.spec import catalogue
from membound.study.once import unheard
from membound.study.predicting import Predictor
from membound.study.validation import rows
from membound.study.validation.answered import Failed
from membound.study.validation.memory import mapping, measured, page, statistics
from membound.study.validation.memory.comparison import Compared, Comparison, outcomes
from membound.study.validation.memory.measured import Measured
from membound.study.validation.memory.outcome import ALLOCATED, GROUPS, HOST, USED, Comparable, Outcome
from membound.study.validation.memory.result import Result, marks, own, write
from membound.study.validation.memory.rows import read
from membound.study.validation.outcome import MATCHED, LeftOut, machine_of
from tests.commands import membound

ROWS = read()
OUTCOMES = [mapping.outcome(row) for row in ROWS]
COMPARABLE = [each for each in OUTCOMES if isinstance(each, Comparable)]
LEFT_OUT = [each for each in OUTCOMES if isinstance(each, LeftOut)]


def of(row_id: str) -> Outcome:
    return next(each for each in OUTCOMES if each.row.id == row_id)


def comparable(row_id: str) -> Comparable:
    found = of(row_id)
    assert isinstance(found, Comparable)
    return found


def compared(published: float | None, predicted: float, fits: bool = True, label: bool | None = True, **changes: Any) -> Compared:
    """A row of a matched run of its own, on a GPU of 100 B."""
    case = dataclasses.replace(comparable("FMSACC-295"), published=published, fits=label, **changes)
    return Compared(case, predicted, predicted, 100.0, fits)


class Oracle:
    """Predicts `law(job)` bytes for everything, on a GPU and a host of 1e12 B; raises what `law` returns if that is an error."""

    def __init__(self, law: Any) -> None:
        self.law = law
        self.asked: list[Mapping[str, Any]] = []

    def predict(self, job: Any, machine: Any, options: Mapping[str, Any] | None = None) -> Any:
        self.asked.append({"job": job, "machine": machine.name, "options": dict(options or {})})
        answer = self.law(job)
        if isinstance(answer, Exception):
            raise answer
        names = [ALLOCATED, USED, HOST, "gpu.memory.active.peak", "gpu.memory.reserved.peak"]
        values: Any = {name: Value(answer, "B", answer, answer, "") for name in names}
        values |= {f"{kind}.memory.capacity": Value(1e12, "B", 1e12, 1e12, "") for kind in ("gpu", "host")}
        fits = answer <= 1e12
        return SimpleNamespace(run=Run("predicted", {}, {}, Fits(fits, fits), values, about={"versions": {"torch": "2.13.0"}}))


def compare(law: Any, outcomes: list[Outcome]) -> tuple[list[Any], Oracle]:
    oracle = Oracle(law)
    predictor: Any = oracle
    return Comparison(predictor).compare(outcomes), oracle


class TestRows:
    def test_ids_are_unique_and_each_row_names_its_source(self) -> None:
        assert len({row.id for row in ROWS}) == len(ROWS) == 484
        assert all(row.source and row.unit and row.metric for row in ROWS)

    def test_two_rows_of_one_id_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = rows._row
        monkeypatch.setattr(rows, "_row", lambda each: dataclasses.replace(entry(each), id="same"))
        with pytest.raises(RecordError, match="same stand there twice"):
            read()

    def test_every_row_has_one_outcome_and_each_that_is_left_out_a_reason(self) -> None:
        assert [each.row for each in OUTCOMES] == ROWS
        assert len(COMPARABLE) + len(LEFT_OUT) == len(ROWS)
        assert all(each.reason and each.detail for each in LEFT_OUT)

    def test_an_unknown_group_is_left_out_and_not_dropped(self) -> None:
        stranger = dataclasses.replace(ROWS[0], group="new")
        assert mapping.outcome(stranger) == LeftOut(stranger, "settings not stated", "sequence length or micro-batch not given")

    @pytest.mark.parametrize("case", COMPARABLE, ids=lambda case: case.row.id)
    def test_a_compared_row_is_whole(self, case: Comparable) -> None:
        assert case.group in GROUPS
        assert case.unit
        assert (case.published is None) == (case.row.metric.endswith("oom") or case.unit.startswith("verdict"))
        assert case.published is None or 1e9 < case.published < 3e12
        assert (case.fits is None) == (case.quantity == HOST) == (case.host_fits is not None)
        assert machine_of(case).total_gpus == case.job.gpus
        catalogue.model(case.job.model)

    @pytest.mark.parametrize("case", [case for case in COMPARABLE if case.row.micro_batch], ids=lambda case: case.row.id)
    def test_what_the_source_states_is_what_is_asked(self, case: Comparable) -> None:
        assert case.job.recipe.micro_batch == case.row.micro_batch
        assert case.job.gpus == case.row.gpus
        assert case.row.seq_len is None or case.job.data.cap == case.row.seq_len
        assert case.job.recipe.method == case.row.task.split()[0].replace("full_ft", "full")

    def test_the_exam_is_single_gpu_hugging_face(self) -> None:
        matched = [case for case in COMPARABLE if case.group == MATCHED]
        assert {case.row.group for case in matched} == {"fms-acceleration"}
        assert {case.job.gpus for case in matched} == {1}


class TestUnits:
    @pytest.mark.parametrize(
        ("row", "published"),
        [
            ("FMSACC-295", 74.8021 * 2**30),  # GiB
            ("FMSACC-296", 75.874 * 2**30),  # GiB
            ("LITGPT-001", 4.82e9),  # GB of 1e9
            ("QWEN-127", 139.2 / 2 * 2**30),  # sum over two GPUs
            ("TTUNE-019", 60.0 * 2**30),  # GiB printed as GiB
            ("SEED65B-009", 1.8 * 2**40),  # TB of modules
            ("SEED65B-029", 0.6 * 32 * 96 * 2**30),  # share of the modules
            ("OFFLOAD-005", 1.2e12),  # TB
        ],
    )
    def test_as_the_source_means_them(self, row: str, published: float) -> None:
        assert comparable(row).published == pytest.approx(published, rel=1e-4)

    def test_a_derived_row_does_not_count_twice(self) -> None:
        assert isinstance(of("QWEN-128"), LeftOut)


class TestComparison:
    def test_no_row_is_dropped_whatever_its_job_meets(self) -> None:
        done, _ = compare(lambda job: CaptureError("no") if job.recipe.engine == "fsdp" else 1e10, OUTCOMES)
        assert [each.row if isinstance(each, LeftOut) else each.case.row for each in done] == ROWS
        failed = [each for each in done if isinstance(each, Failed)]
        assert {each.case.job.recipe.engine for each in failed} == {"fsdp"}
        assert {each.error for each in failed} == {"no"}

    def test_rows_of_one_run_are_predicted_once(self) -> None:
        done, oracle = compare(lambda job: 75e9, [of("FMSACC-295"), of("FMSACC-296")])
        assert len(done) == 2
        assert len(oracle.asked) == 1
        assert oracle.asked[0]["options"] == {"loss": "transformers-4.45-llama-in-place", "fused": True}

    def test_the_machine_is_as_the_source_states_it(self) -> None:
        machine = machine_of(comparable("SEED65B-024"))
        assert (machine.host.capacity, machine.host.dimms_per_channel) == (16 * 96 * 2.0**30, 1)

    def test_groups_can_be_asked_for(self) -> None:
        assert {each.group for each in outcomes([MATCHED]) if isinstance(each, Comparable)} == {MATCHED}
        assert len(outcomes()) == len(ROWS)


class TestStatistics:
    def test_errors_of_a_hand_made_table(self) -> None:
        found = statistics.errors([1.00, 1.01, 0.97, 1.10])
        assert found.count == 4
        assert found.median == pytest.approx(0.02)
        assert found.worst == pytest.approx(0.10)
        assert found.bias == pytest.approx(0.005)
        assert (found.within_2, found.within_5) == (0.5, 0.75)

    def test_the_worst_keeps_its_sign(self) -> None:
        assert statistics.errors([1.02, 0.9]).worst == pytest.approx(-0.1)

    def test_verdict_rows_have_no_ratio(self) -> None:
        done = [compared(50, 55), compared(None, 120, fits=False, label=False)]
        assert statistics.by_group(done)[MATCHED, ALLOCATED].count == 1

    def test_verdicts_count_runs_and_name_the_grave(self) -> None:
        job = comparable("FMSACC-295").job
        other = [job.model_copy(update={"recipe": job.recipe.model_copy(update={"micro_batch": n})}) for n in range(1, 6)]
        done = [
            compared(50, 50, job=other[0]),
            compared(51, 50, job=other[0], quantity=USED),  # the same run
            compared(None, 120, fits=False, label=False, job=other[1]),
            compared(None, 97, fits=True, label=False, job=other[2]),  # 3 % to spare
            compared(None, 90, fits=True, label=False, job=other[3]),  # 10 % to spare
            compared(80, 120, fits=False, label=True, job=other[4]),
        ]
        found = statistics.verdicts(done)
        assert (found.runs, found.right, found.share) == (5, 2, 0.4)
        assert [each.predicted for each in found.false_fits] == [97, 90]
        assert [each.predicted for each in found.grave] == [90]
        assert [each.predicted for each in found.false_misfits] == [120]

    def test_the_exam_is_passed_and_failed(self) -> None:
        good = Result((compared(50, 50.5),), {})
        assert [mark.passed for mark in marks(good)] == [True] * 4
        other = comparable("FMSACC-309").job
        bad = Result((compared(50, 60), compared(None, 50, fits=True, label=False, job=other)), {})
        assert [mark.passed for mark in marks(bad)] == [False] * 4


RECORD: dict[str, Any] = {"name": "a", "mode": "gpu", "environment": {"torch": "2.11.0"}, "allocated": 2e9, "active": 2e9, "reserved": 4e9}


class TestMeasured:
    def test_records_are_predicted_and_failed_runs_kept(self, tmp_path: Path) -> None:
        good = {**RECORD, "job": {"model": "tiny", "data": {"seq_len": 8}}}
        lines = [good, {**good, "error": "Traceback\nout of memory"}, {**good, "job": {"model": "tiny"}}, {**good, "mode": "ghost"}]
        (tmp_path / "memory-a.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
        predictor: Any = Oracle(lambda job: 1e9)
        first, second, third = measured.compare(tmp_path, "h200", predictor, unheard)
        assert (first.ratio("allocated"), first.ratio("reserved")) == (0.5, 0.25)
        assert second.error == "out of memory"
        assert "data" in str(third.error)
        assert own([first, second, third])["allocated"].count == 1

    def test_a_foreign_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "memory-a.jsonl").write_text("{}\n")
        predictor: Any = None
        with pytest.raises(RecordError, match="not records of measured runs"):
            measured.compare(tmp_path, "h200", predictor, unheard)

    def test_no_folder_is_no_record(self, tmp_path: Path) -> None:
        predictor: Any = None
        assert measured.compare(tmp_path / "none", "h200", predictor, unheard) == []


class TestOutput:
    @pytest.fixture
    def result(self) -> Result:
        done, _ = compare(lambda job: InputError("a", 1, "no") if job.recipe.engine == "fsdp" else 1e10, OUTCOMES)
        measured = Measured("run", "memory-a.jsonl", {"torch": "2.11.0"}, {"allocated": 2e9}, {"allocated": 1e9})
        return Result(tuple(done), {"torch": "2.13.0"}, (measured,))

    def test_the_tables_hold_every_row(self, result: Result, tmp_path: Path) -> None:
        write(result, tmp_path / "out", page.page(result))
        table = pq.read_table(tmp_path / "out" / "rows.parquet").to_pylist()
        assert [row["id"] for row in table] == [row.id for row in ROWS]
        assert {row["outcome"] for row in table} == {"compared", "failed", "left out"}
        assert all(row["reason"] for row in table if row["outcome"] != "compared")
        document = json.loads((tmp_path / "out" / "validation.json").read_text())
        assert len(document["rows"]) == len(ROWS)
        assert sum(each["rows"] for each in document["left_out"]) == len(LEFT_OUT)
        assert pq.read_table(tmp_path / "out" / "measured.parquet").num_rows == 1

    def test_the_page_names_every_row_that_was_compared_or_failed(self, result: Result) -> None:
        text = page.page(result)
        assert not [case.row.id for case in COMPARABLE if f"| {case.row.id} |" not in text and f"- {case.row.id} failed" not in text]
        assert f"{len(LEFT_OUT)} are left out" in text
        assert text.index("## Misses") < text.index("## Agreement") < text.index("## Left out")

    def test_an_empty_study_still_has_a_page(self) -> None:
        assert page.page(Result((), {})).startswith("# Validation: memory")

    def test_people_get_tables(self, result: Result, capsys: pytest.CaptureFixture[str]) -> None:
        from membound.cli import output, study_tables

        output.show(study_tables.validation(result))
        printed = capsys.readouterr().out
        assert "the exam" in printed
        assert "GPTQ" in printed

    @pytest.mark.parametrize(("arguments", "words"), [(["valdation"], "did you mean validation"), (["validation", "--group", "x"], "--group: 'x'")])
    def test_a_wrong_name_is_one_line(self, arguments: list[str], words: str) -> None:
        done = membound("study", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


class TestForReal:
    @pytest.mark.parametrize("row", ["FMSACC-001", "FMSACC-309"])
    def test_a_published_row_is_met(self, row: str) -> None:
        (found,) = Comparison(Predictor()).compare([of(row)])
        assert isinstance(found, Compared)
        assert found.ratio == pytest.approx(1, abs=statistics.MEDIAN_LIMIT)
        assert found.fits
