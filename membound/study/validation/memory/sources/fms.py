"""foundation-model-stack/fms-acceleration, scripts/benchmarks: Hugging Face Trainer (TRL), accelerate, PEFT, bitsandbytes on A100-SXM-80GB.

Read in its repository: `benchmark.py` (what is measured), `scenarios*.yaml` and `defaults.yaml` (settings), `refs/requirements.txt` (torch 2.4.1,
transformers 4.45.2, accelerate 1.0.1, peft 0.13.2, bitsandbytes 0.43.3, trl 0.11.4), `accelerate.yaml` (FSDP1, FULL_SHARD), and the plugins.
"""

from __future__ import annotations

from typing import Any, Final

from membound.study.validation.memory.outcome import ALLOCATED, USED, Comparable, Outcome
from membound.study.validation.outcome import GIB, MATCHED, LeftOut, job, known_machine
from membound.study.validation.rows import Row

_MODELS: Final = {"SantaCoder": "santacoder", "Mixtral-8x7B": "mixtral-8x7b", "Llama-3-8B": "llama-3-8b"}
_QUANTITY: Final = {"peak_mem_allocated": ALLOCATED, "peak_mem_nvidia_smi": USED, "mem_oom": USED}
_UNITS: Final = {
    "peak_mem_allocated": "GiB: bytes from the Trainer's memory tracker (torch.cuda.max_memory_allocated of rank 0 while training) over 2^30",
    "peak_mem_nvidia_smi": "GiB: peak less first reading of nvidia-smi (MiB), mean over the GPUs",
    "mem_oom": "verdict: the run gave no throughput",
}
_ATTENTION: Final = "FlashAttention-2 keeps and allocates what PyTorch's own flash kernel does: attention sdpa over rows without padding (packed)"
_RECOMPUTE: Final = "gradient checkpointing of each decoder layer; reentrant at the time, which keeps the same layer inputs"


def outcome(row: Row) -> Outcome:
    """What row `row` of the benchmark becomes."""
    if "GPTQ" in row.model or "GPTQ" in row.task:
        return LeftOut(row, "GPTQ base weights", "membound quantises with bitsandbytes only")
    name = _MODELS[row.model]
    if name == "mixtral-8x7b" and row.task.startswith("qlora"):
        return LeftOut(
            row, "the installed software does otherwise", "Transformers 5 holds a layer's experts in one tensor, which bitsandbytes leaves in 16 bits"
        )
    if "liger" in row.kernels and row.task.startswith("qlora"):
        return LeftOut(row, "kernels not modelled", "adapters fused with the quantised layers, where the loss no longer hides them")
    assert row.seq_len is not None
    assert row.gpus is not None
    place = known_machine(row.gpu, row.gpus)
    return Comparable(
        row,
        job(name, row.seq_len, row.gpus, _recipe(row, name)),
        place,
        _group(row, name),
        _QUANTITY[row.metric],
        None if row.metric == "mem_oom" else row.value * GIB,
        fits=row.metric != "mem_oom",
        unit=_UNITS[row.metric],
        settings=tuple(_settings(row, name)),
        options=_options(row, name),
    )


def _recipe(row: Row, name: str) -> dict[str, Any]:
    recipe: dict[str, Any] = {"micro_batch": row.micro_batch, "accumulation": row.accumulation, "recompute": "full", "precision": _precision(row)}
    if row.gpus != 1:
        recipe["engine"] = "fsdp"
    if row.task != "full_ft":
        recipe["method"] = "qlora" if row.task.startswith("qlora") else "lora"
        # scenarios.yaml: r 16, lora_alpha 16, lora_dropout 0.1; SantaCoder has only c_attn of the targets listed.
        targets = ["c_attn"] if name == "santacoder" else ["q_proj", "k_proj", "v_proj", "o_proj"]
        recipe["lora"] = {"rank": 16, "alpha": 16, "dropout": 0.1, "targets": targets, "dtype": "fp32"}
    return recipe


def _precision(row: Row) -> str:
    if "no autocast" in row.precision:
        return "bf16"
    # Weights are loaded in bfloat16 (torch_dtype); on one GPU autocast makes no fp32 copies of them, under FSDP accelerate does of those that train.
    return "bf16" if row.task == "full_ft" and row.gpus == 1 else "bf16-mixed"


def _group(row: Row, name: str) -> str:
    if name == "santacoder":
        return "older-model"
    if name == "mixtral-8x7b":
        return "experts"
    return MATCHED if row.gpus == 1 else "fsdp1"


def _options(row: Row, name: str) -> dict[str, Any]:
    family = "gpt" if name == "santacoder" else "llama"
    options: dict[str, Any] = {"loss": f"transformers-4.45-{family}{'-in-place' if 'foak' in row.kernels else ''}"}
    if "liger" in row.kernels:
        options["loss"] = "fused-linear"
    if "foak" in row.kernels and family == "llama":
        options["fused"] = True
    if row.task.startswith("qlora"):
        options["upcast"] = row.kernels.startswith("baseline")
    return options


def _settings(row: Row, name: str) -> list[str]:
    settings = [_ATTENTION, _RECOMPUTE, "loss of Transformers 4.45: logits upcast (not by GPTBigCode) and copied (programs/losses.py)"]
    if "foak" in row.kernels:
        settings.append("foak: cross-entropy writes its gradient into the logits; fused norms and rotary embedding (programs/fused.py)")
    if "foak" in row.kernels and row.task.startswith("qlora"):
        settings.append("foak's fused adapters are not modelled: they hold less within a layer, the peak is at the loss")
    if "liger" in row.kernels:
        settings.append("liger: head and cross-entropy in one, in chunks (programs/fused.py)")
    if row.task != "full_ft":
        settings.append("adapters in fp32: PEFT's autocast_adapter_dtype, on by default")
    if row.kernels.startswith("accelerated-peft-bnb"):
        settings.append("nothing upcast to fp32: the plugin's own _prepare_model_for_kbit_training")
    if row.gpus != 1 and row.task != "full_ft":
        settings.append("accelerate ran FSDP1's forward under autocast as well; under FSDP2 it does not (matters to layer norms: SantaCoder)")
    if name == "santacoder":
        settings.append("Transformers 4.45 returns all layers' keys and values with the logits (use_cache); the installed code does not")
    return settings
