"""From a speed row to its outcome: by the source's group. Every row has exactly one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from membound.study.validation.rows import Row
from membound.study.validation.sources import Sources
from membound.study.validation.speed.outcome import SpeedOutcome
from membound.study.validation.speed.sources import litgpt, others, pretraining, with_memory

_READ: Final[dict[str, Callable[[Row], SpeedOutcome]]] = {
    "fms-acceleration": with_memory.fms_acceleration,
    "qwen": with_memory.qwen_readme,
    "torchtune-ladder": with_memory.torchtune_ladder,
    "litgpt": litgpt.outcome,
    "llm-foundry": pretraining.llm_foundry,
    "fms-fsdp": pretraining.fms_fsdp,
    "cpu-offload": others.offload,
    "xtuner": others.xtuner,
    "alpaca": others.alpaca,
}
_MEGATRON: Final = ("other framework", "Megatron: tensor, pipeline or context parallel, its own kernels")
_CLASSIC: Final = ("not a causal language model", "no training program for it yet")
# Groups of which no row can be expressed, or, below, rows by what their source says.
_WHOLE: Final[dict[str, tuple[str, str]]] = {
    "ao-4090": ("settings not stated", "a model shape of the authors' own, compilation and recomputation not stated"),
    "ao-optim": ("settings not stated", "micro-batch not printed"),
    "dle": _CLASSIC,
    "flagperf-classic": _CLASSIC,
    "flash-attn": ("settings not stated", "micro-batch and accumulation not printed; the authors' own fused kernels"),
    "lambda": _CLASSIC,
    "lambda-v2": _CLASSIC,
    "megatron-2205": _MEGATRON,
    "megatron-bridge": _MEGATRON,
    "nemo-2407": _MEGATRON,
    "nemo-launcher": _MEGATRON,
    "neusight": ("not a training step", "forward and backward without an optimizer; whether TF32 is on is not stated"),
    "power-zeus": ("other framework", "Merak: pipeline parallel"),
    "torchao-ac-ladder": ("settings not stated", "micro-batch not printed; torchtitan's own model code"),
    "torchtune": ("settings not stated", "optimizer and recomputation, which differ from row to row"),
    "torchtune-old": ("length of rows not stated", "unpacked rows of which only the longest is given; speed of one GPU or all not stated"),
    "vtrain-multi": _MEGATRON,
    "vtrain-single": _MEGATRON,
}
_WORDS: Final[tuple[tuple[str, str, str], ...]] = (
    ("lightning-thunder", "other framework", "lightning-thunder with fp8"),
    ("llm.c", "other framework", "llm.c, without PyTorch"),
    ("TinyLlama", "kernels not modelled", "the authors' own fused kernels; accumulation not stated"),
    ("ColossalAI", "other framework", "Colossal-AI"),
    ("model cards", "not a measurement of speed", "GPU hours over tokens, downtime included"),
    ("LLaMA paper", "settings not stated", "strategy and micro-batch"),
    ("Unsloth", "kernels not modelled", "Unsloth's"),
)
_SOURCES: Final = Sources(_READ, _WHOLE, _WORDS, "sequence length, micro-batch or kernels not given")


def outcome(row: Row) -> SpeedOutcome:
    """What becomes of `row`."""
    return _SOURCES.outcome(row)
