"""The Job: every combination of fields is either a Job or one clear InputError, and a Job that is written out reads back the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membound.errors import InputError
from membound.spec import fields
from membound.spec.job import Job, deepspeed_json

TINY: dict[str, Any] = {"model": "tiny", "data": {"seq_len": 128}}

COUNTS = st.integers(1, 64)
PLACES = st.sampled_from(["none", "cpu", "nvme"])
RECIPES = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(["full", "lora", "qlora"]),
        "lora": st.fixed_dictionaries(
            {},
            optional={
                "rank": COUNTS,
                "alpha": st.floats(0.5, 64),
                "dropout": st.floats(0, 0.9),
                "targets": st.sampled_from(["all-linear", ["q_proj"], []]),
            },
        ),
        "quantisation": st.fixed_dictionaries({}, optional={"type": st.sampled_from(["nf4", "fp4"]), "double": st.booleans()}),
        "precision": st.sampled_from(["bf16", "bf16-mixed", "fp16-mixed", "fp32"]),
        "optimizer": st.sampled_from(["adamw", "adamw-fused", "adamw-8bit", "paged-adamw-8bit", "adafactor", "sgd"]),
        "engine": st.sampled_from(["none", "ddp", "fsdp", "deepspeed"]),
        "fsdp": st.sampled_from(["full-shard", "grad-op", "hybrid"]),
        "zero_stage": st.integers(0, 3) | st.none(),
        "offload": st.fixed_dictionaries({}, optional={"optimizer": PLACES, "params": PLACES}),
        "recompute": st.sampled_from(["none", "full", "selective"]),
        "micro_batch": COUNTS,
        "accumulation": COUNTS,
    },
)
DATA = st.fixed_dictionaries(
    {}, optional={"seq_len": COUNTS, "lengths": st.just("alpaca"), "path": st.just("rows.json"), "tokenizer": st.just("folder"), "max_length": COUNTS}
)
JOBS = st.fixed_dictionaries({"model": st.just("tiny"), "data": DATA | st.just({"seq_len": 64})}, optional={"recipe": RECIPES, "gpus": COUNTS})

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANYTHING = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6)
KEYS = st.sampled_from(["model", "data", "recipe", "gpus", "machine", "allow_code", "seq_len", "lora", "micro_batch", "bogus"])


def read(data: object) -> Job | InputError:
    """The Job or the refusal; anything else escapes and fails the test."""
    try:
        return fields.read(Job, data)
    except InputError as error:
        return error


@settings(max_examples=400, deadline=None)
@given(JOBS)
def test_every_combination_is_a_job_or_one_clear_line(data: dict[str, Any]) -> None:
    job = read(data)
    if isinstance(job, InputError):
        assert job.field
        assert job.cure
        assert "\n" not in str(job)
        return
    assert Job.model_validate(job.model_dump()) == job
    assert Job.model_validate(json.loads(json.dumps(job.model_dump(mode="json")))) == job


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(KEYS, ANYTHING | RECIPES | DATA, max_size=5) | ANYTHING)
def test_hostile_values_are_refused_in_one_line(data: object) -> None:
    job = read(data)
    assert isinstance(job, Job) or ("\n" not in str(job) and len(str(job)) < 2000)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"recipe": {"micro_bacth": 4}}, "recipe.micro_bacth: 4: unknown key; did you mean micro_batch?"),
        ({"recipe": {"method": "loar"}}, "recipe.method: 'loar': not one of the choices; did you mean lora?"),
        ({"recipe": {"micro_batch": 0}}, "recipe.micro_batch: 0: must be greater than or equal to 1"),
        ({"recipe": {"micro_batch": "four"}}, "recipe.micro_batch: 'four': must be a valid integer"),
        ({"recipe": {"learning_rate": float("inf")}}, "recipe.learning_rate: inf: must be a finite number"),
        ({"recipe": {"lora": {"rank": 8}}}, "method full has no adapters"),
        ({"recipe": {"engine": "fsdp", "zero_stage": 1}}, "recipe.zero_stage: 1: only engine deepspeed reads it; the engine is fsdp"),
        ({"recipe": {"engine": "deepspeed"}}, "give either zero_stage (0..3) or deepspeed_config"),
        ({"recipe": {"method": "qlora", "precision": "fp32"}}, "recipe.precision: 'fp32': QLoRA computes in bf16: write bf16 or bf16-mixed"),
        ({"recipe": {"offload": {"optimizer": "cpu"}}}, "engine none cannot offload; use deepspeed or fsdp"),
        ({"gpus": 2}, "recipe.engine: 'none': 2 GPUs need ddp, fsdp or deepspeed"),
        ({"data": {"seq_len": 8, "lengths": "alpaca"}}, "give exactly one of seq_len, lengths, path"),
        ({"data": {}}, "give exactly one of seq_len, lengths, path"),
        ({"model": 7}, "model: 7: must be a valid string"),
    ],
)
def test_each_mistake_names_field_value_and_cure(change: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        fields.read(Job, {**TINY, **change})
    assert told in str(caught.value)


def test_an_idle_part_is_not_written_out() -> None:
    assert "lora" not in Job.model_validate(TINY).model_dump()["recipe"]
    lora = Job.model_validate({**TINY, "recipe": {"method": "lora"}}).model_dump()["recipe"]
    assert "lora" in lora
    assert "quantisation" not in lora


def test_changes_are_checked_as_a_whole() -> None:
    job = fields.read(Job, TINY)
    changed = fields.with_values(job, {"recipe.engine": "deepspeed", "recipe.zero_stage": 2, "gpus": 8})
    assert (changed.recipe.engine, changed.recipe.zero_stage, changed.gpus) == ("deepspeed", 2, 8)
    with pytest.raises(InputError, match="zero_stage"):
        fields.with_values(job, {"recipe.engine": "deepspeed"})


@pytest.mark.parametrize(("content", "told"), [("[]", "must hold one JSON object"), ("{", "is not JSON"), (None, "No such file")])
def test_deepspeed_json_is_read_or_refused(content: str | None, told: str, tmp_path: Any) -> None:
    path = tmp_path / "ds.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=told):
        deepspeed_json(str(path))


def test_nvme_takes_optimizer_states_of_fp32_alone() -> None:
    recipe = {"engine": "deepspeed", "zero_stage": 3, "offload": {"optimizer": "nvme", "params": "cpu"}}
    assert Job.model_validate({**TINY, "gpus": 2, "recipe": recipe}).recipe.offload.optimizer == "nvme"
    with pytest.raises(InputError, match=r"^recipe\.precision: 'bf16': DeepSpeed swaps optimizer states of fp32 only"):
        Job.model_validate({**TINY, "gpus": 2, "recipe": {**recipe, "precision": "bf16"}})


def test_quantised_weights_are_offloaded_by_fsdp_alone() -> None:
    recipe = {"method": "qlora", "engine": "fsdp", "offload": {"optimizer": "cpu", "params": "cpu"}}
    assert Job.model_validate({**TINY, "gpus": 2, "recipe": recipe}).recipe.offload.params == "cpu"
    with pytest.raises(InputError, match=r"^recipe\.offload\.params: 'cpu': DeepSpeed offloads no NF4 weights"):
        Job.model_validate({**TINY, "gpus": 2, "recipe": {**recipe, "engine": "deepspeed", "zero_stage": 3}})
