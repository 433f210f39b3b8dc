"""From a Job to a Run: what is captured, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from membound.replay.time import Replayer
from membound.run import quantities
from membound.run.schema import Missing
from membound.spec import catalogue
from membound.spec.job import Job
from membound.study import predicting
from membound.study.predicting import Predictor
from membound.trace.schema import Trace


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch, tiny_trace: Trace) -> list[int | None]:
    """Caps of the Jobs that were captured, each of which gives the Trace of `tiny`."""
    caps: list[int | None] = []

    def capture(job: Job, *_: Any) -> Trace:
        caps.append(job.data.max_length)
        return tiny_trace

    monkeypatch.setattr(predicting, "capture", capture)
    return caps


def test_fixed_rows_are_captured_once(captured: list[int | None], tiny_job: Job) -> None:
    Predictor(cached=False).predict(tiny_job, catalogue.machine("rtx-4090"))
    assert captured == [None]


def test_rows_of_many_lengths_are_captured_at_the_cap_and_once_below(captured: list[int | None], tiny_job: Job) -> None:
    job = tiny_job.model_copy(update={"data": tiny_job.data.model_copy(update={"seq_len": None, "lengths": "alpaca", "max_length": 256})})
    Predictor(cached=False).predict(job, catalogue.machine("rtx-4090"))
    cap, usual = sorted(captured, key=lambda length: -(length or 0))
    assert cap == 256
    assert usual is not None
    assert 64 < usual < 230


def test_every_quantity_that_can_be_predicted_has_a_value(captured: list[int | None], tiny_job: Job) -> None:
    run = Predictor(cached=False).predict(tiny_job, catalogue.machine("h100-sxm")).run
    assert set(run.values) == set(quantities.QUANTITIES)
    assert {name for name, value in run.values.items() if isinstance(value, Missing)} == set()
    assert {"gpu", "host", "marks", "curves", "time.resources", "time.families"} <= set(run.tables)
    assert sum(run.about["sensitivity"].values()) == pytest.approx(1.0)


def test_software_of_another_time_runs_the_attention_of_its_time() -> None:
    """The Trace is the same; a Hopper is slower, an Ampere is not, whose PyTorch takes flash today as well; with FlashAttention 1 both are."""
    asked = Job.model_validate({"model": "tiny", "data": {"seq_len": 2048}, "recipe": {"micro_batch": 4, "precision": "bf16"}})
    now, then, first = (Predictor().replayer(asked, 1, {"attention": kind}) for kind in ("cudnn", "flash-2", "flash-1"))
    assert now.trace.header == then.trace.header
    for name, slower in (("h100-sxm", True), ("a100-sxm-80gb", False)):
        machine = catalogue.machine(name)
        times = [replayer.on(machine).prices.table[0].sum() for replayer in (now, then, first)]
        assert (times[1] > times[0]) == slower
        assert times[2] > times[1]


def varying(cap: int, **recipe: Any) -> Job:
    data = {"lengths": "alpaca", "max_length": cap}
    return Job.model_validate({"model": "tiny", "data": data, "recipe": {"micro_batch": 2, "precision": "bf16", **recipe}})


@pytest.mark.parametrize("cap", [250, 256, 259])
def test_rows_that_differ_are_priced_at_their_lengths_whatever_the_cap(cap: int) -> None:
    """A mask of 250 tokens is padded to 256, one of 128 is not: such captures would not be the same program."""
    job = varying(cap)
    replayer, machine = Predictor().replayer(job, 1), catalogue.machine("h100-sxm")
    assert len(replayer.on(machine).grid) > 2
    assert not [note for note in Predictor().priced(replayer, job, machine).run.about["notes"] if "two lengths" in note]


def test_where_two_lengths_run_other_operators_time_is_that_of_the_usual_one() -> None:
    """The second capture with attention written out stands for a model that does otherwise in short rows."""
    job, machine = varying(256), catalogue.machine("h100-sxm")
    replayer, other = (Predictor().replayer(each, 1) for each in (job, varying(256, attention="eager")))
    assert other.other is not None
    mixed = Replayer(replayer.trace, replayer.lengths, other.other)
    played = mixed.on(machine)
    assert played.grid == (replayer.lengths.second_capture(),)
    run = Predictor().priced(mixed, job, machine).run
    assert [note for note in run.about["notes"] if "two lengths" in note]
    longest = Predictor().priced(Replayer(replayer.trace, replayer.lengths), job, machine).run
    assert (run.number("flops.model") or 0) < (longest.number("flops.model") or 0)
    whole = Predictor().priced(replayer, job, machine).run
    assert run.number("gpu.memory.allocated.peak") == whole.number("gpu.memory.allocated.peak")
