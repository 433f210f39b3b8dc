"""The search for a change that fits: from least to most costly, bounded, and honest about what was tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from membound.errors import CaptureError, InputError
from membound.replay.result import Curve, GpuMemory, HostMemory, Memory, Moment
from membound.run.schema import Fits, Run
from membound.spec import fields
from membound.spec.job import Job
from membound.study import plan
from membound.study.predicting import Prediction

NOTHING: Any = np.zeros(0, np.int64)


def prediction(lasting: float, activations: float, capacity: float = 100.0, host: float = 0.0) -> Prediction:
    """A prediction of a GPU of `capacity`, and a host of 100, that are filled so far."""
    used, at_peak = int(lasting + activations), {"weights": int(lasting), "activations": int(activations)}
    gpu_fits, host_fits = used <= capacity, host <= 100
    moment, curve = Moment(0, "backward", 0, 0, "", "", ""), Curve(NOTHING, NOTHING, NOTHING, {})
    gpu = GpuMemory(*[used] * 5, 0, 0, used, int(capacity), gpu_fits, None, moment, at_peak, (), curve)
    memory = Memory(gpu, HostMemory(int(host), 0, 0, 0, 100, host_fits, None, {}))
    trace: Any = None
    timing: Any = None
    return Prediction(Run("predicted", {}, {}, Fits(gpu_fits, host_fits), {}), memory, trace, timing)


def job(**recipe: Any) -> Job:
    gpus = recipe.pop("gpus", 1)
    return fields.read(Job, {"model": "tiny", "data": {"seq_len": 8}, "recipe": recipe, "gpus": gpus})


def search(asked: Job, law: Callable[[Job], Prediction]) -> tuple[plan.Advice, list[str]]:
    """The advice where `law` predicts, and what was heard on the way."""
    heard: list[str] = []
    return plan.advise(asked, law(asked), law, heard.append), heard


def test_the_micro_batch_goes_first_and_keeps_the_rows_of_a_step() -> None:
    advice, heard = search(job(micro_batch=8, accumulation=2), lambda each: prediction(40, 20 * each.recipe.micro_batch))
    assert advice.cure is not None
    assert advice.cure.options() == ["recipe.micro_batch=2", "recipe.accumulation=8"]
    assert heard == ["micro-batch 8 to 2, accumulation times 4"]


def test_changes_add_up() -> None:
    kept = {"none": 80, "selective": 50, "full": 10}
    advice, _ = search(job(micro_batch=2), lambda each: prediction(70, kept[each.recipe.recompute] * each.recipe.micro_batch))
    assert advice.cure is not None
    assert advice.cure.changes == {"recipe.micro_batch": 1, "recipe.accumulation": 2, "recipe.recompute": "full"}
    assert [attempt.fits for attempt in advice.attempts] == [False, False, True]


def test_activations_are_left_alone_where_weights_do_not_fit() -> None:
    share = {1: 120, 2: 110, 3: 30}
    asked = job(engine="deepspeed", zero_stage=1, gpus=8, micro_batch=4)
    advice, _ = search(asked, lambda each: prediction(share[each.recipe.zero_stage or 1], 40))
    assert [attempt.options() for attempt in advice.attempts] == [["recipe.zero_stage=2"], ["recipe.zero_stage=3"]]


def test_ddp_turns_to_fsdp() -> None:
    advice, _ = search(job(engine="ddp", gpus=8), lambda each: prediction(200 if each.recipe.engine == "ddp" else 50, 1))
    assert advice.cure is not None
    assert advice.cure.options() == ["recipe.engine=fsdp"]


def test_a_change_that_overfills_the_host_is_taken_back() -> None:
    def law(each: Job) -> Prediction:
        offloaded = each.recipe.offload.optimizer != "none"
        return prediction(20 if each.recipe.method != "full" else 200, 1, host=150 if offloaded else 10)

    advice, _ = search(job(), law)
    assert advice.cure is not None
    assert advice.cure.options() == ["recipe.method=lora", "recipe.lora.targets=all-linear"]
    assert [attempt.fits for attempt in advice.attempts][-1] is True


def test_a_host_that_is_too_small_is_not_cured_by_more_offload() -> None:
    advice, heard = search(job(), lambda each: prediction(10, 1, host=150 if each.recipe.method == "full" else 10))
    assert heard == ["LoRA"]
    assert advice.cure is not None


def test_the_search_is_bounded() -> None:
    calls: list[Job] = []

    def law(each: Job) -> Prediction:
        calls.append(each)
        return prediction(90, 1000 * each.recipe.micro_batch)

    advice, _ = search(job(engine="deepspeed", zero_stage=0, gpus=8, micro_batch=1 << 12), law)
    assert advice.cure is None
    assert len(advice.attempts) <= plan.MOST
    assert len(calls) == len(advice.attempts) + 1


@pytest.mark.parametrize(
    "error", [CaptureError("the capture outgrew its memory limit"), InputError("recipe.lora.targets", "all-linear", "not in this model")]
)
def test_what_cannot_be_captured_is_told_and_passed_over(error: Exception) -> None:
    def law(each: Job) -> Prediction:
        if each.recipe.method == "lora":
            raise error
        return prediction(20 if each.recipe.method == "qlora" else 200, 1)

    advice, _ = search(job(precision="bf16", optimizer="sgd"), law)
    assert str(error) in [attempt.why for attempt in advice.attempts]
    assert advice.cure is not None
    assert advice.cure.what == "QLoRA"


def test_the_run_says_what_was_tried() -> None:
    advice, _ = search(job(micro_batch=8), lambda each: prediction(40, 20 * each.recipe.micro_batch))
    cures = plan.with_cures(prediction(200, 0).run, advice).document()["about"]["cures"]
    assert cures[0]["change"] == "recipe.micro_batch=2 recipe.accumulation=4"
    assert cures[0]["fits"] is True


@pytest.mark.parametrize(
    "recipe", [{}, {"engine": "ddp", "gpus": 2}, {"engine": "fsdp", "gpus": 2}, {"engine": "deepspeed", "zero_stage": 2, "gpus": 2}]
)
def test_every_change_can_be_written_on_the_command_line(recipe: dict[str, Any], tmp_path: Any) -> None:
    from membound.spec import jobfile

    asked = job(**recipe)
    advice, _ = search(asked, lambda each: prediction(200, 1))
    path = tmp_path / "job.yaml"
    path.write_text(asked.model_dump_json(exclude_unset=True))
    assert advice.attempts
    for attempt in advice.attempts:
        again = jobfile.read(str(path), attempt.options()).job
        assert plan._difference(asked, again.model_copy(update={"machine": asked.machine})) == attempt.changes
