"""QwenLM/Qwen, README "Profiling of Memory and Speed": Hugging Face Trainer, PEFT, DeepSpeed, Qwen's own model code, PyTorch 2.0."""

from __future__ import annotations

from typing import Any, Final

from membound.study.validation.memory.outcome import USED, Comparable, Outcome
from membound.study.validation.outcome import GIB, LeftOut, job, known_machine
from membound.study.validation.rows import Row

_MODELS: Final = {"Qwen-1.8B": "qwen-1.8b", "Qwen-7B": "qwen-7b", "Qwen-72B": "qwen-72b"}
_UNIT: Final = "printed as GB, tool not named: read as nvidia-smi's MiB over 1024"
_TARGETS: Final = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# "two servers, each containing two A100-SXM4-80G GPUs": the rows LoRA (multinode). Their network is not stated.
_TWO_SERVERS: Final[dict[str, object]] = {"gpus": 2}
_MULTINODE: Final = "two servers of two GPUs each; the network between them is not stated: as the catalogue's machine has it"
_BF16_STATES: Final = (
    "ZeRO-3 leaves adapters in the type that PEFT made them in: precision bf16, whose master weights and states, fp32 there, are bf16 as well "
    "(3 GB over all GPUs)"
)
_SETTINGS: Final = (
    "LoRA as finetune.py: rank 64, alpha 16, dropout 0.05 on c_attn, c_proj, w1, w2; c_attn, one layer there, is q_proj, k_proj and v_proj here",
    "adapters in bfloat16, as PEFT made them before 0.12",
    "loss as its modeling_qwen.py: logits copied in bfloat16, which autocast upcasts for the cross-entropy",
)


def outcome(row: Row) -> Outcome:
    """What row `row` of the table becomes."""
    if "derived" in row.notes and row.metric == "peak_mem":
        return LeftOut(row, "derived from another row", "the published sum over GPUs, divided; the sum's own row is compared")
    if "GPTQ" in row.task:
        return LeftOut(row, "GPTQ base weights", "membound quantises with bitsandbytes only")
    if "trainable" in row.task:
        return LeftOut(row, "method not modelled", "LoRA that also trains embedding and output layer")
    assert row.seq_len is not None
    assert row.gpus is not None
    place = known_machine(row.gpu, row.gpus)
    multinode = "multinode" in row.notes
    more = [*([_MULTINODE] if multinode else []), *([_BF16_STATES] if row.strategy.startswith("zero3") and row.task == "lora" else [])]
    return Comparable(
        row,
        job(_MODELS[row.model], row.seq_len, row.gpus, _recipe(row)),
        place,
        "qwen",
        USED,
        row.value * GIB / (row.gpus if row.metric == "peak_mem_sum_over_gpus" else 1),
        fits=True,
        unit=_UNIT,
        settings=(*_SETTINGS, *more),
        options={"loss": "transformers-4.45-gpt" if "zero" in row.strategy else "transformers-4.45-gpt-autocast"},
        machine_changes=_TWO_SERVERS if multinode else {},
    )


def _recipe(row: Row) -> dict[str, Any]:
    recipe: dict[str, Any] = {"micro_batch": row.micro_batch, "accumulation": row.accumulation, "recompute": "full", "precision": "bf16"}
    if row.task == "lora":
        recipe |= {"method": "lora", "lora": {"rank": 64, "alpha": 16, "dropout": 0.05, "targets": _TARGETS}}
    for stage in (2, 3):
        if row.strategy.startswith(f"zero{stage}"):
            recipe |= {"engine": "deepspeed", "zero_stage": stage, "precision": "bf16" if stage == 3 and row.task == "lora" else "bf16-mixed"}
    return recipe
