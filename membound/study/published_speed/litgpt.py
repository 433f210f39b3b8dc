"""Lightning-AI/litgpt, tutorials/resource-tables.md: minutes for 1,000 iterations, commit 8641822, A100-SXM-40GB, Alpaca."""

from __future__ import annotations

import re
from typing import Any, Final

from membound.study.published.litgpt import LORA, MODELS
from membound.study.published.outcome import LeftOut
from membound.study.published.rows import Row
from membound.study.published_speed.outcome import STEP, SpeedOutcome, Timed, over_alpaca, several
from membound.study.published_speed.rows import rounding

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
    asked = over_alpaca(name, int(longest[1]), row.gpus, _recipe(row, targets))
    published = row.value * 60 / 1000 * row.accumulation
    return Timed(row, asked, several(row.gpu, row.gpus), "litgpt", STEP, published, _UNIT, rounding(row.value), _SETTINGS)


def _recipe(row: Row, targets: list[str]) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "method": row.task,
        "lora": {"rank": 8, "alpha": 16, "dropout": 0.05, "targets": targets},
        "precision": "bf16",
        "micro_batch": row.micro_batch,
        "accumulation": row.accumulation,
        "max_grad_norm": 0,
    }
    if row.gpus != 1:
        recipe |= {"engine": "fsdp", "recompute": "full"}
    if row.task == "qlora":
        recipe["quantisation"] = {"type": "nf4", "double": row.precision.endswith("-dq")}
    return recipe
