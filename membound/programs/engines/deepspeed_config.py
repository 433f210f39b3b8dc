"""A DeepSpeed configuration: from the recipe, as Hugging Face's examples write it, or the user's own; `auto` resolved as the Trainer does."""

from __future__ import annotations

from typing import Any

from membound.errors import InputError
from membound.spec.job import Job, deepspeed_json

# tatsu-lab/stanford_alpaca configs/default_offload_opt_param.json: what the report's recipe sets.
_SUB_GROUP = 1_000_000_000
_MAX_LIVE = 1_000_000_000
# huggingface/transformers docs/source/en/deepspeed.md, the ZeRO-3 NVMe example.
_NVME_IN_CPU = 1_000_000_000
_NVME_AIO = {"block_size": 262144, "queue_depth": 32, "intra_op_parallelism": 1, "single_submit": False, "overlap_events": True}

# DeepSpeed's words for keeping no fp32 copy of anything (0.18 and later).
_NO_MASTERS, _NO_STATES = "bf16_master_weights_and_grads", "bf16_optimizer_states"
_SECTIONS = {
    "bf16": f"bf16: {{enabled: true, {_NO_MASTERS}: true, {_NO_STATES}: true}}",
    "bf16-mixed": "bf16: {enabled: true}",
    "fp16": "fp16: {enabled: true}",
    "fp32": "neither bf16 nor fp16 enabled",
}


def settings(job: Job, model: dict[str, Any]) -> dict[str, Any]:
    """The configuration that `deepspeed.initialize` gets. Raises `InputError` for an `auto` that nobody resolves.

    Micro-batch and accumulation are the Job's; `check` says whether the user's own file agrees.
    """
    config = deepspeed_json(job.recipe.deepspeed_config) if job.recipe.deepspeed_config else from_recipe(job, model)
    resolved: dict[str, Any] = _resolve(config, _automatic(job, model), ())
    _check_precision(job, resolved)
    resolved.pop("train_batch_size", None)  # DeepSpeed multiplies it out
    resolved["train_micro_batch_size_per_gpu"] = job.recipe.micro_batch
    resolved["gradient_accumulation_steps"] = job.recipe.accumulation
    resolved.setdefault("zero_allow_untested_optimizer", True)
    resolved.setdefault("zero_force_ds_cpu_optimizer", False)
    resolved.setdefault("steps_per_print", 1 << 30)
    return resolved


def check(job: Job) -> None:
    """Raise `InputError` if the user's own file counts batches or ranks otherwise than the Job."""
    if not job.recipe.deepspeed_config:
        return
    config = deepspeed_json(job.recipe.deepspeed_config)
    wanted = {
        "train_micro_batch_size_per_gpu": job.recipe.micro_batch,
        "gradient_accumulation_steps": job.recipe.accumulation,
        "train_batch_size": job.recipe.micro_batch * job.recipe.accumulation * job.gpus,
    }
    for name, value in wanted.items():
        if config.get(name, "auto") not in ("auto", value):
            raise InputError(f"deepspeed_config.{name}", config[name], f"the Job says {value}: write the same, or auto")


def _check_precision(job: Job, config: dict[str, Any]) -> None:
    enabled = next((name for name in ("bf16", "fp16") if section(config, name).get("enabled")), "fp32")
    if enabled == "bf16" and not section(config, "bf16").get(_NO_MASTERS):
        enabled = "bf16-mixed"
    wanted = "fp16" if job.recipe.precision == "fp16-mixed" else job.recipe.precision
    if enabled != wanted:
        cure = f"the Job's precision is {job.recipe.precision}, which needs {_SECTIONS[wanted]}"
        raise InputError("recipe.deepspeed_config", f"trains in {enabled}", cure)


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The object that `config` holds under `name`; an absent one is empty."""
    held = config.get(name)
    if held is not None and not isinstance(held, dict):
        raise InputError(f"deepspeed_config.{name}", held, "must be a JSON object")
    return held or {}


def stage(config: dict[str, Any]) -> int:
    """The ZeRO stage of a configuration."""
    written = section(config, "zero_optimization").get("stage", 0)
    if written not in (0, 1, 2, 3):
        raise InputError("deepspeed_config.zero_optimization.stage", written, "ZeRO has the stages 0, 1, 2 and 3")
    return int(written)


def from_recipe(job: Job, model: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the recipe's fields, `auto` where Hugging Face's examples have it."""
    recipe = job.recipe
    zero: dict[str, Any] = {"stage": recipe.zero_stage, "overlap_comm": True, "contiguous_gradients": True, "reduce_bucket_size": "auto"}
    if recipe.zero_stage == 3:
        zero |= {
            "sub_group_size": _SUB_GROUP,
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_max_live_parameters": _MAX_LIVE,
            "stage3_max_reuse_distance": _MAX_LIVE,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    config: dict[str, Any] = {"zero_optimization": zero, "gradient_clipping": recipe.max_grad_norm, **_precision(job)}
    if recipe.offload.optimizer != "none":
        zero["offload_optimizer"] = _offload(recipe.offload.optimizer)
        config["optimizer"] = {"type": "AdamW", "params": {"lr": recipe.learning_rate, "weight_decay": 0.0}}
    if recipe.offload.params != "none":
        zero["offload_param"] = _offload(recipe.offload.params)
    if "nvme" in {recipe.offload.optimizer, recipe.offload.params}:
        config["aio"] = dict(_NVME_AIO)
    if recipe.offload.params == "nvme":
        zero["offload_param"] |= _swap_buffers(model, job.gpus)
    return config


def _offload(place: str) -> dict[str, Any]:
    return {"device": place, "pin_memory": True, **({"nvme_path": "/local_nvme"} if place == "nvme" else {})}


def _swap_buffers(model: dict[str, Any], ranks: int) -> dict[str, int]:
    """As many buffers as matrices can be gathered at a time, each for a rank's part of the largest: with fewer DeepSpeed stops in forward."""
    hidden, layers = _hidden(model), int(model.get("num_hidden_layers") or model.get("n_layer") or 1)
    inner = int(model.get("intermediate_size") or 4 * hidden)
    smallest, largest = hidden * min(hidden, inner), hidden * max(inner, int(model.get("vocab_size", 0)))
    # Four matrices of attention, three of the feed-forward block; one layer more than may live, for what is being fetched.
    count = min(7 * layers + 2, _MAX_LIVE // smallest + 7) + 1
    return {"buffer_count": count, "buffer_size": largest // ranks + ranks, "max_in_cpu": _NVME_IN_CPU}


def _hidden(model: dict[str, Any]) -> int:
    return int(model.get("hidden_size") or model.get("n_embd") or model.get("d_model") or 1024)


def _precision(job: Job) -> dict[str, Any]:
    match job.recipe.precision:
        case "bf16":
            return {"bf16": {"enabled": True, _NO_MASTERS: True, _NO_STATES: True}}
        case "bf16-mixed":
            return {"bf16": {"enabled": True}}
        case "fp16-mixed":
            return {"fp16": {"enabled": True}}
        case "fp32":
            return {}


def _automatic(job: Job, model: dict[str, Any]) -> dict[tuple[str, ...], Any]:
    """What the Hugging Face Trainer puts in place of `auto` (transformers.integrations.deepspeed, trainer_config_process and _finalize)."""
    hidden = _hidden(model)
    recipe = job.recipe
    optimizer = {"lr": recipe.learning_rate, "weight_decay": 0.0, "betas": [0.9, 0.999], "eps": 1e-8}
    return {
        ("train_batch_size",): recipe.micro_batch * recipe.accumulation * job.gpus,
        ("train_micro_batch_size_per_gpu",): recipe.micro_batch,
        ("gradient_accumulation_steps",): recipe.accumulation,
        ("gradient_clipping",): recipe.max_grad_norm,
        ("bf16", "enabled"): recipe.precision in {"bf16", "bf16-mixed"},
        ("fp16", "enabled"): recipe.precision == "fp16-mixed",
        ("zero_optimization", "reduce_bucket_size"): hidden * hidden,
        ("zero_optimization", "stage3_prefetch_bucket_size"): int(0.9 * hidden * hidden),
        ("zero_optimization", "stage3_param_persistence_threshold"): 10 * hidden,
        **{("optimizer", "params", name): value for name, value in optimizer.items()},
        ("scheduler", "params", "warmup_min_lr"): 0,
        ("scheduler", "params", "warmup_max_lr"): recipe.learning_rate,
        ("scheduler", "params", "warmup_num_steps"): 12,
        ("scheduler", "params", "total_num_steps"): 400,
    }


def _resolve(config: Any, automatic: dict[tuple[str, ...], Any], path: tuple[str, ...]) -> Any:
    if isinstance(config, dict):
        return {key: _resolve(value, automatic, (*path, str(key))) for key, value in config.items()}
    if config != "auto":
        return config
    if path not in automatic:
        raise InputError("deepspeed_config." + ".".join(path), "auto", "nothing resolves this auto: write its value")
    return automatic[path]
