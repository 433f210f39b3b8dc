"""DeepSpeed's blog on ZenFlow, Open-Llama, XTuner, and the Alpaca recipe's own users: few rows each."""

from __future__ import annotations

from importlib import resources
from typing import Any, Final

from membound.study.validation.outcome import LeftOut, job, known_machine
from membound.study.validation.rows import Row
from membound.study.validation.speed.outcome import OFFLOAD, STEP, TOKENS, SpeedOutcome, Timed, over_alpaca
from membound.study.validation.speed.rows import rounding

_RATE: Final = "tokens/s of one GPU over rows of one length"
_ZENFLOW: Final = (
    "DeepSpeedExamples training/DeepSpeed-ZenFlow/finetuning @ b4385e54: rows padded to 512 tokens, clipping at 1.0, weights loaded in bfloat16",
    "its printed configuration as it stands: gradients are neither reduced nor copied while backward goes on, in buckets of 500 million; without "
    "offload, the same but for that section",
    "whether the host's threads are bound to cores cannot be asked: both readings stand beside one prediction",
    "the mean of its first 51 steps, the first ones included; here a later step",
)
_CONFIGURATIONS: Final = resources.files("membound.study") / "data" / "deepspeed"
_OPEN_LLAMA: Final = (
    "48 GPUs, as its issue 60 states; nodes of 64 cores and 1 TB; network as the catalogue's machine has it",
    "accumulation 12, as its recipe of that time; vocabulary as LLaMA's",
    "xformers' memory-efficient attention there, PyTorch's flash kernel here",
)
# 1 TB in 32 modules, 64 cores (issue 60 of s-JoL/Open-Llama).
_OPEN_LLAMA_NODE: Final[dict[str, object]] = {"host.dimms.capacity": 32 * 2.0**30, "host.dimms.count": 32, "host.cores_per_socket": 32}
_NETWORK: Final = "the network between nodes is not stated: as the catalogue's machine has it"
_XTUNER: Final = (
    "ZeRO stage 3 and recomputation of each layer: its defaults, not printed",
    "its packed rows attend over the whole row here",
    _NETWORK,
)
_ALPACA: Final = (
    "3 epochs of 52,002 rows in steps of 128: 1,219 steps; loading and saving are in the published time, not in the prediction",
    "LLaMA's attention of early 2023 was written out in PyTorch: attention eager",
    "FSDP1 there, FSDP2 here",
)
_ALPACA_STEPS: Final = 52_002 * 3 // 128 + 1
_LLAMAS: Final = {"7B": "llama-7b", "13B": "llama-13b", "33B": "llama-33b", "65B": "llama-65b"}


def offload(row: Row) -> SpeedOutcome:
    """Rows of the group cpu-offload."""
    if "zenflow-corebinding" in row.source:
        return _zenflow(row)
    if row.model.startswith("Open-Llama"):
        return _open_llama(row)
    if row.model.startswith("GPT"):
        return LeftOut(row, "other framework", "Megatron-DeepSpeed with tensor and pipeline parallelism")
    return LeftOut(row, "settings not stated", "sequence length or micro-batch not given")


def _zenflow(row: Row) -> SpeedOutcome:
    if "ZenFlow" in row.strategy:
        return LeftOut(row, "method not modelled", "ZenFlow: the optimizer's step spread over later steps")
    offloaded = "offload (" in row.strategy and not row.strategy.startswith("zero2 (no offload)")
    recipe: dict[str, Any] = {
        "engine": "deepspeed", "precision": "bf16-mixed", "micro_batch": row.micro_batch, "accumulation": row.accumulation,
        "deepspeed_config": str(_CONFIGURATIONS / ("zenflow-blog-offload.json" if offloaded else "zenflow-blog.json")),
    }  # fmt: skip
    assert row.gpus is not None
    asked = job(row.model.lower(), 512, row.gpus, recipe)
    unit = "s for one step, mean of three runs"
    return Timed(row, asked, known_machine(row.gpu, row.gpus), OFFLOAD, STEP, row.value, unit, rounding(row.value), _ZENFLOW)


def _open_llama(row: Row) -> Timed:
    stage = 1 if row.strategy.startswith("zero1") else 3
    recipe: dict[str, Any] = {
        "engine": "deepspeed", "zero_stage": stage, "precision": "bf16-mixed", "micro_batch": row.micro_batch, "accumulation": 12,
        "recompute": row.recompute,
    }  # fmt: skip
    if "offload" in row.strategy:
        recipe["offload"] = {"optimizer": "cpu", "params": "cpu"}
    assert row.seq_len is not None
    assert row.gpus is not None
    asked = job(_LLAMAS[row.model.removeprefix("Open-Llama-")], row.seq_len, row.gpus, recipe)
    place = known_machine(row.gpu, row.gpus)
    return Timed(row, asked, place, "open-llama", TOKENS, row.value, _RATE, settings=_OPEN_LLAMA, machine_changes=_OPEN_LLAMA_NODE)


def xtuner(row: Row) -> SpeedOutcome:
    """InternLM/xtuner's docs/zh_cn/acceleration/benchmark.rst."""
    if row.metric != "tokens_per_s_per_gpu":
        return LeftOut(row, "derived from another row", "TFLOP/s, worked out from the tokens per second of the same run; that row is compared")
    if not row.strategy.endswith("SP1"):
        return LeftOut(row, "parallelism not modelled", "sequence parallelism")
    if not row.model.startswith("Llama-2"):
        return LeftOut(row, "model not in the catalogue", row.model)
    assert row.seq_len is not None
    assert row.gpus is not None
    recipe = {"engine": "deepspeed", "zero_stage": 3, "micro_batch": row.micro_batch, "accumulation": row.accumulation, "recompute": "full"}
    asked = job(row.model.lower(), row.seq_len, row.gpus, recipe)
    return Timed(row, asked, known_machine(row.gpu, row.gpus), "xtuner", TOKENS, row.value, _RATE, settings=_XTUNER)


def alpaca(row: Row) -> Timed:
    """Hours for the whole recipe on eight A100s, as its authors and a user report them."""
    recipe = {"engine": "fsdp", "precision": "bf16-mixed", "micro_batch": 4, "accumulation": 4, "attention": "eager"}
    unit = f"h for the whole fine-tune: times 3,600 s, over {_ALPACA_STEPS:,} steps"
    published = row.value * 3600 / _ALPACA_STEPS
    asked = over_alpaca("llama-7b", 512, 8, recipe)
    return Timed(row, asked, known_machine(row.gpu, 8), "alpaca", STEP, published, unit, settings=_ALPACA)
