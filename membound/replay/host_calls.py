"""What the host pays for each item of a Program: which price of `membound.cost.launch` its call takes, and what Python does around some of them."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost import launch
from membound.cost.profile import Profile
from membound.replay import several_calls
from membound.replay.program import Program
from membound.trace.schema import CATEGORY, KIND, PHASE

Floats = npt.NDArray[np.float64]

_CALLS: Final = {
    "kernel": "kernel", "copy_h2d": "copy", "copy_d2h": "copy", "collective": "collective", "host": "host", "record": "event", "wait": "event",
    "sync": "sync",
}  # fmt: skip


# Where DeepSpeed hangs its hooks on modules, as lines of the Trace name it.
_HOOKS: Final = "deepspeed/runtime/zero/parameter_offload.py"


def seconds(program: Program, profile: Profile) -> Floats:
    """What the host spends on each item of `program`, and on what comes before it, s, where a call takes what `profile` says; [items]."""
    calls = np.zeros(max(KIND.values()) + 1, np.int64)
    for kind, call in _CALLS.items():
        calls[KIND[kind]] = launch.KINDS.index(call)
    engine = program.trace.header.job.get("recipe", {}).get("engine")
    collective = (program.kind == KIND["collective"]) & (program.phase != PHASE["optimizer"])
    prepared = {"fsdp": "gather", "deepspeed": "reduce"}.get(str(engine), "collective")
    own = np.where(collective, launch.KINDS.index(prepared), calls[program.kind])
    if engine == "deepspeed":
        own = np.where(collective & _gathers(program), launch.KINDS.index("fetch"), own)
    backward = program.phase == PHASE["backward"]
    model = backward | (program.phase == PHASE["forward"])
    hooks = _hooks(program, profile, backward) if _hooked(program) else None
    each = launch.launch_seconds(profile, own, model, backward, program.views, program.modules, program.tensors, hooks)
    within = several_calls.calls(program) * profile.launch["kernel"]
    around = _called(program, profile) + _recomputing(program, profile) + _packed(program, profile) + _stepping(program, profile)
    return np.asarray(each + within + around, np.float64)


def _gathers(program: Program) -> npt.NDArray[np.bool_]:
    gathers = np.array(["allgather" in name for name in program.trace.header.ops], np.bool_)
    return np.asarray(gathers[program.op], np.bool_)


def _hooked(program: Program) -> bool:
    """Whether ZeRO-3 hooked the modules: its hooks made operations, with one GPU as with many."""
    return any(_HOOKS in line for line in program.trace.header.lines)


def _hooks(program: Program, profile: Profile, backward: npt.NDArray[np.bool_]) -> Floats:
    forward = program.phase == PHASE["forward"]
    there, here = int(program.entered[forward].sum()), int(program.entered[backward].sum())
    recomputed = program.trace.header.job.get("recipe", {}).get("recompute") == "full"
    again = min(there / here, 1.0) if recomputed and here else 0.0
    return launch.hook_seconds(profile, program.entered, backward, again)


# A line of Transformers' own code, as a Trace names it.
_TRANSFORMERS: Final = "transformers/"


def _called(program: Program, profile: Profile) -> Floats:
    """What calling a model takes beyond its layers, before each forward's and each backward's first item; Transformers' models have one price."""
    found = np.zeros(len(program))
    theirs = any(line.startswith(_TRANSFORMERS) for line in program.trace.header.lines)
    for phase, price in (("forward", "model"),) if theirs else (("forward", "call"), ("backward", "call_backward")):
        inside = np.flatnonzero(program.phase == PHASE[phase])
        _, first = np.unique(program.micro[inside], return_index=True)
        found[inside[first]] = profile.launch[price]
    return found


# A layer in the path of one of its modules: up to the first number.
_LAYER: Final = re.compile(r"(?:[^.]+\.)*?\d+(?=\.|$)")
_WAYS: Final = {"full": ("recompute", "recompute_backward"), "selective": ("selective", "selective_backward")}


def _recomputing(program: Program, profile: Profile) -> Floats:
    """What keeping a layer's activations from being saved takes, before its first item in forward, and making them again, before that in backward.

    Running the layer's operators again is in their own items.
    """
    found = np.zeros(len(program))
    prices = _WAYS.get(str(program.trace.header.job.get("recipe", {}).get("recompute")))
    if prices is None or not len(program):
        return found
    paths = [_LAYER.match(path) for path in program.trace.header.modules]
    names = [path.group() if path else "" for path in paths]
    number = {name: place for place, name in enumerate(sorted(set(names) - {""}))}
    layer = np.array([number.get(name, -1) for name in names], np.int64)[program.trace.instructions["module"][program.row]]
    for phase, price in zip(("forward", "backward"), prices, strict=True):
        inside = np.flatnonzero((program.phase == PHASE[phase]) & (layer >= 0))
        _, first = np.unique(np.stack([program.micro[inside], layer[inside]]), axis=1, return_index=True)
        found[inside[first]] += profile.launch[price]
    return found


_PACKED: Final = {"bitsandbytes.gemm_4bit": "quantised", "bitsandbytes.dequantize_4bit": "quantised_backward"}


def _packed(program: Program, profile: Profile) -> Floats:
    """bitsandbytes' Python around a product with a 4-bit weight, and around that weight's widening for the gradient, and their further launches."""
    prices = [profile.launch.get(_PACKED.get(name.rpartition(".")[0], ""), 0.0) for name in program.trace.header.ops]
    return np.asarray(np.array(prices, np.float64)[program.op], np.float64)


# What a parameter adds, where with SGD and fused AdamW it adds one: loops over states, groups and lists of them (validation/compare_host_steps.py).
# The calls of Adafactor, which steps one parameter after the other, cover all of it; bitsandbytes' Python comes for each parameter.
_PARAMETERS: Final = {"adamw": 2.0, "lamb": 5.0, "adafactor": 0.0, "adamw-8bit": 10.0, "paged-adamw-8bit": 10.0}
# Engines under which one of PyTorch's own optimizers, or of its kind, steps.
_STEPPING: Final = ("none", "ddp", "fsdp")


def stepped(program: Program) -> int:
    """Tensors that the optimizer writes which hold weights: how many parameters it steps."""
    operands = program.operands
    inside = (operands.write == 1) & (program.phase == PHASE["optimizer"])[operands.item]
    written = np.unique(operands.storage[inside])
    return int((program.trace.storages["category"][written] == CATEGORY["weights"]).sum())


def _stepping(program: Program, profile: Profile) -> Floats:
    """What an optimizer's step takes beyond its calls, before the first of them: hooks and groups, and a loop in Python over the parameters.

    Where the loss is scaled that comes after waiting for whether gradients are finite, and what scaling itself takes before all.
    """
    found = np.zeros(len(program))
    recipe = program.trace.header.job.get("recipe", {})
    inside = np.flatnonzero(program.phase == PHASE["optimizer"])
    if recipe.get("engine") not in _STEPPING or not len(inside):
        return found
    first = inside[0]
    if recipe.get("precision") == "fp16-mixed":
        found[first] += profile.launch["scaler"]
        waits = inside[program.kind[inside] == KIND["sync"]]
        first = inside[inside > waits[0]][0] if len(waits) and waits[0] < inside[-1] else first
    each = _PARAMETERS.get(str(recipe.get("optimizer")), 1.0) * profile.launch["parameter"]
    found[first] += profile.launch["step"] + stepped(program) * each
    return found
