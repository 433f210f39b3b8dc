"""What becomes of a published speed: a Job whose prediction is compared with it, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from membound.spec import fields
from membound.spec.job import Job
from membound.study.validation.memory import outcome
from membound.study.validation.outcome import MATCHED, LeftOut
from membound.study.validation.rows import Row

STEP: Final = "step.time"
TOKENS: Final = "tokens.rate"

OFFLOAD: Final = "deepspeed-offload"
_MEMORY_ONLY: Final = frozenset({"peft-docs", "report", "offload"})
_WITH_MEMORY: Final = {name: words for name, words in outcome.GROUPS.items() if name not in _MEMORY_ONLY}
GROUPS: Final[dict[str, str]] = {
    MATCHED: _WITH_MEMORY[MATCHED],
    OFFLOAD: "software matched: Hugging Face model under DeepSpeed ZeRO-2, with and without its optimizer on the host",
    **_WITH_MEMORY,
    "qwen": _WITH_MEMORY["qwen"] + "; times are printed to a tenth of a second",
    "fms-fsdp": "fms-fsdp's own Llama code under FSDP1, on 96 and 128 GPUs; predicted with the Hugging Face model of the same shape under FSDP2",
    "fms-fsdp-compiled": "the same under torch.compile",
    "llm-foundry": "llm-foundry's own GPT code (MPT) under FSDP1, with FlashAttention; predicted with the Hugging Face GPT-2 of the same shape",
    "xtuner": "XTuner's own training loop and attention over Hugging Face Llama; ZeRO stage not printed",
    "open-llama": "Open-Llama: xformers' attention, DeepSpeed on 48 GPUs; accumulation and network not printed beside the speeds",
    "alpaca": "Stanford Alpaca's recipe as its users report it: whole hours, everything included",
}
"""Groups of compared rows, by the software that ran."""
EXAM: Final = (MATCHED, OFFLOAD)
"""Groups whose software computes as the Job does; all others are approximate."""


@dataclass(frozen=True)
class Timed:
    """A row that a Job can express."""

    row: Row
    job: Job
    machine: str
    """Catalogue name."""
    group: str
    quantity: str
    """`step.time` or `tokens.rate`."""
    published: float
    """What the source printed, in the quantity's SI unit: s for one optimizer step, or tokens per second and GPU."""
    unit: str
    """How the printed unit was read, and why."""
    rounding: float = 0.0
    """Half of the last printed digit, relative to the value; 0 where it does not matter."""
    settings: tuple[str, ...] = ()
    """What was set where the source is silent or the installed software differs, each with its reason."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Code of the time: `loss` and `upcast` (see `membound.programs.losses`)."""
    machine_changes: Mapping[str, object] = field(default_factory=dict)
    """Fields of the machine that the source states otherwise, dotted."""


SpeedOutcome = Timed | LeftOut


def over_alpaca(model: str, longest: int, gpus: int, recipe: Mapping[str, Any]) -> Job:
    """A checked Job over Alpaca's rows, none longer than `longest` tokens."""
    data = {"lengths": "alpaca", "max_length": longest}
    return fields.read(Job, {"model": model, "data": data, "gpus": gpus, "recipe": dict(recipe)})
