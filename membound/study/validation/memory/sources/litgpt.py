"""Lightning-AI/litgpt, tutorials/resource-tables.md: commit 8641822, PyTorch 2.1.0, bitsandbytes 0.41.1, A100-SXM-40GB, bf16-true, Alpaca."""

from __future__ import annotations

import re
from typing import Any, Final

from membound.study.validation.memory.outcome import ALLOCATED, Comparable, Outcome
from membound.study.validation.outcome import GB, LeftOut, job, known_machine
from membound.study.validation.rows import Row

MODELS: Final = {
    "phi-1.5 1.3 B": ("phi-1.5", ["q_proj", "v_proj"]),
    "StableLM Alpha 3 B": ("stablelm-alpha-3b", ["query_key_value"]),
    "Llama 2 7 B": ("llama-2-7b", ["q_proj", "v_proj"]),
    "Llama 2 13 B": ("llama-2-13b", ["q_proj", "v_proj"]),
    "Falcon 40 B": ("falcon-40b", ["query_key_value"]),
}
LORA: Final = (
    "LoRA as its finetune/lora.py: rank 8, alpha 16, dropout 0.05, on queries and values (where the model fuses them: on all of the fused layer)"
)
_UNIT: Final = "GB of 1e9 B: finetune scripts print torch.cuda.max_memory_allocated() / 1e9 of rank 0"
_SETTINGS: Final = (
    "every row as long as the longest example, which sets the peak; no padding mask, as litgpt passes none",
    LORA,
    "litgpt computes the loss in pieces of 128 tokens; predicted whole",
)


def outcome(row: Row) -> Outcome:
    """What row `row` of the table becomes."""
    if "adapter" in row.task:
        return LeftOut(row, "method not modelled", "LLaMA-Adapter")
    if row.gpus != 1:
        return LeftOut(row, "the peak is of loading", "Lightning Fabric loads FSDP weights by gathering them all on each GPU (strategies/fsdp.py)")
    if row.model == "Falcon 40 B" and row.task == "qlora":
        return LeftOut(row, "the installed software does otherwise", "Transformers 5 leaves Falcon's own linear class in 16 bits")
    longest = re.search(r"longest example \((\d+) tok\)", row.notes)
    assert longest is not None
    name, targets = MODELS[row.model]
    place = known_machine(row.gpu, 1)
    return Comparable(
        row,
        job(name, int(longest[1]), 1, recipe_of(row, targets)),
        place,
        "litgpt",
        ALLOCATED,
        None if row.metric == "mem_oom" else row.value * GB,
        fits=row.metric != "mem_oom",
        unit=_UNIT,
        settings=_SETTINGS,
    )


def recipe_of(row: Row, targets: list[str]) -> dict[str, Any]:
    """litgpt's recipe for `row` on one GPU, with adapters on `targets`."""
    recipe: dict[str, Any] = {
        "method": row.task,
        "lora": {"rank": 8, "alpha": 16, "dropout": 0.05, "targets": targets},
        "precision": "bf16",
        "micro_batch": row.micro_batch,
        "accumulation": row.accumulation,
        "max_grad_norm": 0,
    }
    if row.task == "qlora":
        recipe["quantisation"] = {"type": "nf4", "double": row.precision.endswith("-dq")}
    return recipe
