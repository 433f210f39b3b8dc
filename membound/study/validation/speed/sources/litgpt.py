"""Lightning-AI/litgpt, tutorials/resource-tables.md: minutes for 1,000 iterations, commit 8641822, A100-SXM-40GB, Alpaca."""

from __future__ import annotations

import re
from typing import Final

from membound.study.validation.memory.sources.litgpt import LORA, MODELS, recipe_of
from membound.study.validation.outcome import LeftOut, known_machine
from membound.study.validation.rows import Row
from membound.study.validation.speed.outcome import STEP, SpeedOutcome, Timed, over_alpaca
from membound.study.validation.speed.rows import rounding

_UNIT: Final = "min for 1,000 iterations of one micro-batch each: over 1,000, times the micro-batches of a step"
_SETTINGS: Final = (
    LORA,
    "loss in pieces of 128 tokens there, whole here",
    "row lengths of Llama-1's tokenizer for every model",
)


def outcome(row: Row) -> SpeedOutcome:
    """What row `row` of the table becomes."""
    if "adapter" in row.task:
        return LeftOut(row, "method not modelled", "LLaMA-Adapter")
    longest = re.search(r"longest example \((\d+) tok\)", row.notes)
    assert longest is not None
    assert row.gpus is not None
    assert row.accumulation is not None
    name, targets = MODELS[row.model]
    sharded = {"engine": "fsdp", "recompute": "full"} if row.gpus != 1 else {}
    asked = over_alpaca(name, int(longest[1]), row.gpus, recipe_of(row, targets) | sharded)
    published = row.value * 60 / 1000 * row.accumulation
    return Timed(row, asked, known_machine(row.gpu, row.gpus), "litgpt", STEP, published, _UNIT, rounding(row.value), _SETTINGS)
