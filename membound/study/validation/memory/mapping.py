"""From a row to its outcome: by the source's group. Every row has exactly one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from membound.study.validation.memory.outcome import Outcome
from membound.study.validation.memory.sources import fms, guides, litgpt, qwen, report
from membound.study.validation.rows import Row
from membound.study.validation.sources import Sources

_READ: Final[dict[str, Callable[[Row], Outcome]]] = {
    "fms-acceleration": fms.outcome,
    "litgpt": litgpt.outcome,
    "qwen": qwen.outcome,
    "peft-docs": guides.peft_docs,
    "torchtune": guides.torchtune,
    "torchtune-ladder": guides.torchtune,
    "torchtune-old": guides.torchtune,
    "cpu-offload": guides.offload,
    "seed-7b": report.outcome,
    "seed-65b-offload": report.outcome,
    "seed-65b-qlora": report.outcome,
}
# Groups of which no row can be expressed, or, below, rows by what their notes say.
_WHOLE: Final[dict[str, tuple[str, str]]] = {
    "alpaca": ("an estimate, no reading", "the authors' arithmetic"),
    "ao-4090": ("settings not stated", "a model shape of the authors' own, compilation and recomputation not stated"),
    "ao-optim": ("settings not stated", "sequence length and micro-batch not printed"),
    "flagperf-classic": ("not a causal language model", "no training program for it yet"),
    "torchao-ac-ladder": ("settings not stated", "micro-batch not printed; torchtitan's own model code"),
}
_WORDS: Final[tuple[tuple[str, str, str], ...]] = (
    ("T0_3B", "not a causal language model", "encoder-decoder"),
    ("mt0", "not a causal language model", "encoder-decoder"),
    ("BAdam", "method not modelled", "block-coordinate Adam"),
    ("Unsloth", "kernels not modelled", "Unsloth's"),
    ("ColossalAI", "other framework", "Colossal-AI"),
    ("lightning-thunder", "other framework", "lightning-thunder with fp8"),
)
_SOURCES: Final = Sources(_READ, _WHOLE, _WORDS, "sequence length or micro-batch not given")


def outcome(row: Row) -> Outcome:
    """What becomes of `row`."""
    return _SOURCES.outcome(row)
