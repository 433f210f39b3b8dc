"""A Job and a Machine in a few words, from the plain mappings that a Run carries. What is not there is not said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from membound.report.inert import inert
from membound.run.schema import Run

_ENGINES = {"ddp": "DDP", "fsdp": "FSDP2", "deepspeed": "DeepSpeed"}
_PREPARING = {
    "load": "while the model is loaded",
    "prepare": "while engine and optimizer are prepared",
    "data": "while data are fetched, before the first step",
    "other": "before the first step",
}


def model(run: Run) -> str:
    """The model's name; of a path, its last part."""
    name = inert(run.job.get("model") or "unnamed model")
    return PurePath(name).name or name if "/" in name else name


def technique(run: Run) -> str:
    """How it is trained: 'LoRA rank 16, bf16-mixed, adamw, ZeRO-3, optimizer on cpu'."""
    recipe = _mapping(run.job.get("recipe"))
    parts = [_method(recipe), recipe.get("precision"), recipe.get("optimizer"), _engine(recipe), *_extras(recipe)]
    return ", ".join(inert(part, 60) for part in parts if part)


def shape(run: Run) -> str:
    """What one step is fed: 'micro-batch 4, accumulated 8 times, rows of 512 tokens'."""
    recipe, data = _mapping(run.job.get("recipe")), _mapping(run.job.get("data"))
    parts = []
    if recipe.get("micro_batch"):
        parts.append(f"micro-batch {inert(recipe['micro_batch'], 20)}")
    if recipe.get("accumulation") not in {None, 1}:
        parts.append(f"accumulated {inert(recipe['accumulation'], 20)} times")
    if data.get("seq_len"):
        parts.append(f"rows of {inert(data['seq_len'], 20)} tokens")
    elif data.get("max_length"):
        parts.append(f"rows of up to {inert(data['max_length'], 20)} tokens")
    elif data.get("image_size"):
        parts.append(f"images of {inert(data['image_size'], 20)} pixels")
    return ", ".join(parts)


def machine(run: Run) -> str:
    """What it runs on: '8 x h100-sxm (hgx-h100)'."""
    name = inert(run.machine.get("name") or "unnamed machine", 60)
    gpu = inert(_mapping(run.machine.get("gpu")).get("name") or "", 60)
    count = run.job.get("gpus")
    front = f"{inert(count, 12)} x " if count else ""
    return f"{front}{gpu} ({name})" if gpu and gpu != name else f"{front}{name}"


def where(moment: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """A moment of the program in words: ('in backward of step 1', module path, 'file.py:line', operator); '' where unknown."""
    module, line, op = (inert(moment.get(key) or "") for key in ("module", "line", "op"))
    return when(moment), module, line, op


def when(moment: Mapping[str, Any]) -> str:
    """'in backward of step 1'; steps and micro-steps count from 1."""
    phase, step, micro = inert(moment.get("phase") or "", 40), moment.get("step"), moment.get("micro")
    if not isinstance(step, int) or step < 0:
        return _PREPARING.get(phase, f"in {phase}" if phase else "")
    later = ""
    if isinstance(micro, int) and micro > 0 and phase in {"data", "forward", "backward"}:
        later = f", micro-step {micro + 1}"
    return f"in {phase or 'the program'} of step {step + 1}{later}"


def _method(recipe: Mapping[str, Any]) -> str:
    method, rank = recipe.get("method"), _mapping(recipe.get("lora")).get("rank")
    ranked = f" rank {inert(rank, 12)}" if rank else ""
    if method == "lora":
        return f"LoRA{ranked}"
    if method == "qlora":
        return f"QLoRA {inert(_mapping(recipe.get('quantisation')).get('type') or '', 12)}{ranked}"
    return "full fine-tune" if method == "full" else inert(method or "", 40)


def _engine(recipe: Mapping[str, Any]) -> str:
    engine = recipe.get("engine")
    if engine == "deepspeed" and recipe.get("zero_stage") is not None:
        return f"ZeRO-{recipe['zero_stage']}"
    return "" if engine in {None, "none"} else _ENGINES.get(str(engine), str(engine))


def _extras(recipe: Mapping[str, Any]) -> list[str]:
    offload = _mapping(recipe.get("offload"))
    names = {"optimizer": "optimizer", "params": "weights"}
    found = [f"{what} on {offload[key]}" for key, what in names.items() if offload.get(key) not in {None, "none"}]
    if recipe.get("recompute") not in {None, "none"}:
        found.append(f"{recipe['recompute']} recomputation")
    usual = {"kernels": "eager", "attention": "sdpa"}
    return found + [f"{recipe[key]} {key}" for key, common in usual.items() if recipe.get(key) not in {None, common}]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
