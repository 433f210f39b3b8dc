"""mosaicml/llm-foundry and foundation-model-stack/fms-fsdp: GPT and Llama shapes under FSDP1, every setting printed beside each speed."""

from __future__ import annotations

from typing import Any, Final

from membound.study.validation.outcome import LeftOut, job, known_machine
from membound.study.validation.rows import Row
from membound.study.validation.speed.outcome import TOKENS, SpeedOutcome, Timed
from membound.study.validation.speed.sources import shapes

_SAME_RUN: Final = ("derived from another row", "utilisation, worked out from the tokens per second of the same run; that row is compared")
_RATE: Final = "tokens/s of one GPU over rows of one length, without padding"
_FOUNDRY: Final = ("decoupled AdamW of the model's yaml is AdamW here",)
# The tables' own script (scripts/train/benchmarking/sweep.sh) starts release v0.0.4, of spring 2023, before there was FlashAttention-2, and the `gpu`
# extra that it installs still has flash-attn 1 in November 2023 (mosaicml/llm-foundry issue 722). The large H100 runs came later, without a word.
_FIRST: Final = (
    "FlashAttention's first version: PyTorch's flash kernel at twice its time, as the second version's paper compares them",
    {"attention": "flash-1"},
)
_SECOND: Final = (
    "which version of FlashAttention ran is not stated beside the large runs: the second, whose copy PyTorch's flash kernel is",
    {"attention": "flash-2"},
)
_PURE: Final = "mixed_precision PURE reduces gradients in bfloat16; they are reduced in fp32 here"
_NETWORK: Final = "the H100 cluster's network is not stated: as a DGX H100's"
# RoCE of 1,600 Gbit/s between nodes of eight A100s (the heading of its table): B/s for each GPU. The H100 tables name none.
_FOUNDRY_NETWORK: Final = 1600e9 / 8 / 8
_FMS: Final = (
    "gradients are reduced in bfloat16 there, in fp32 here",
    "FlashAttention-2 through PyTorch, as the source says, on every GPU: PyTorch did not yet prefer cuDNN's attention on Hopper",
)
_FMS_MODELS: Final = {"Llama-2-7B": "llama-2-7b", "Llama-2-13B": "llama-2-13b", "Llama-2-70B": "llama-2-70b"}
# Gbit/s between two nodes of eight GPUs as the source states it: B/s for each GPU.
_FMS_NETWORK: Final = {"A100": 400e9 / 8 / 8, "H100": 800e9 / 8 / 8}


def llm_foundry(row: Row) -> SpeedOutcome:
    """scripts/train/benchmarking/README.md: one row of its tables."""
    if row.metric == "mfu":
        return LeftOut(row, *_SAME_RUN)
    if "fp8" in row.precision:
        return LeftOut(row, "precision not modelled", "8-bit floating point")
    assert row.seq_len is not None
    assert row.gpus is not None
    sharding = "grad-op" if "SHARD_GRAD_OP" in row.strategy else "full-shard"
    asked = job(shapes.path(row.model.lower()), row.seq_len, row.gpus, _recipe(row, sharding))
    attention, options = _SECOND if "Large Scale" in row.source else _FIRST
    settings = [*_FOUNDRY, attention, *([_PURE] if "PURE" in row.strategy else [])]
    network: dict[str, object] = {}
    if row.gpu.startswith("A100"):
        network["links.network"] = _FOUNDRY_NETWORK
    elif row.gpus > 8:
        settings.append(_NETWORK)
    place = known_machine(row.gpu, row.gpus)
    return Timed(row, asked, place, "llm-foundry", TOKENS, row.value, _RATE, settings=tuple(settings), options=options, machine_changes=network)


def fms_fsdp(row: Row) -> SpeedOutcome:
    """README and the PyTorch blog's table: Llama-2 shapes on 96 H100 or 128 A100."""
    if row.metric == "mfu":
        return LeftOut(row, *_SAME_RUN)
    if row.recompute == "selective":
        return LeftOut(row, "recomputation not modelled", "recomputation of every n-th layer: a Job recomputes all layers or none")
    assert row.seq_len is not None
    assert row.gpus is not None
    compiled = "no compile" not in row.attention
    model = shapes.path("llama-2-34b") if row.model == "Llama-2-34B" else _FMS_MODELS[row.model]
    recipe = _recipe(row, "hybrid" if "HYBRID" in row.strategy else "full-shard")
    asked = job(model, row.seq_len, row.gpus, {**recipe, "kernels": "compile" if compiled else "eager"})
    network = {"links.network": _FMS_NETWORK[row.gpu[:4]]}
    group = "fms-fsdp-compiled" if compiled else "fms-fsdp"
    place = known_machine(row.gpu, row.gpus)
    return Timed(row, asked, place, group, TOKENS, row.value, _RATE, settings=_FMS, options=_SECOND[1], machine_changes=network)


def _recipe(row: Row, sharding: str) -> dict[str, Any]:
    return {
        "engine": "fsdp", "fsdp": sharding, "precision": "bf16-mixed", "recompute": "full" if row.recompute == "full" else "none",
        "micro_batch": row.micro_batch, "accumulation": row.accumulation,
    }  # fmt: skip
