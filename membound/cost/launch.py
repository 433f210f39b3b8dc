"""What the host pays for each call before the GPU hears of it: Python, the dispatcher, autograd, the driver's launch."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.profile import Profile

KINDS: Final = (
    "kernel",
    "backward",
    "view",
    "view_backward",
    "module",
    "model",
    "call",
    "call_backward",
    "tensor",
    "collective",
    "gather",
    "reduce",
    "fetch",
    "hooked",
    "hooked_backward",
    "recompute",
    "recompute_backward",
    "selective",
    "selective_backward",
    "quantised",
    "quantised_backward",
    "step",
    "parameter",
    "scaler",
    "event",
    "copy",
    "sync",
    "host",
)
"""Calls that a profile prices: an operator called from Python with autograd on, or by autograd's own thread; a view, or one that autograd's
thread makes; entering and leaving a module; calling a model of Transformers, backward included, beyond its layers and its operators; calling another
model, and its backward; each tensor of a multi-tensor call; a collective, or one that FSDP2's own Python prepares, or a reduction that DeepSpeed's
does, or ZeRO-3's gathering of parameters; a module that ZeRO-3 hooks, in forward and in backward; a layer that is recomputed, wholly or by PyTorch's
selective policy, beyond its operators, in forward and in backward; a product with bitsandbytes' 4-bit weight, and widening that weight in backward,
beyond the operator; an optimizer's step beyond its calls, what each parameter adds to that, and scaling the loss; recording or waiting for an event;
a copy; a synchronisation beyond the wait itself; an operator on host tensors beyond its work."""

# Operands that a call has without being a multi-tensor one: beyond these, each costs the time of a tensor.
_FEW: Final = 8
# What a layer of real model code takes over the sum of its calls, each measured alone and hundreds of times in a row: Python between the calls, and
# caches that other code has used since. Median of four models on two hosts, 1.29 to 1.94 (validation/compare_host.py; docs/laws.md). Engines' own
# Python and optimizers were measured in place.
MODEL_CODE: Final = 1.52

Column = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Seconds = npt.NDArray[np.float64]


def launch_seconds(
    profile: Profile, kind: Column, model: Flags, backward: Flags, views: Column, modules: Column, tensors: Column, hooks: Seconds | None = None
) -> npt.NDArray[np.float64]:
    """Host seconds of each item and of the views and modules before it; [n].

    Args: `kind` index into `KINDS` of each item, `model` whether the model's code makes the call, in forward or for it in backward, `backward`
    whether autograd's thread makes it, `hooks` what an engine's hooks take before it (`hook_seconds`).
    """
    prices = profile.launch
    kernel = kind == KINDS.index("kernel")
    own = np.array([prices[name] for name in KINDS])[kind]
    own = np.where(backward & kernel, prices["backward"], own)
    many = np.maximum(tensors - _FEW, 0) * prices["tensor"]
    # Within autograd's thread no module is entered.
    around = views * np.where(backward, prices["view_backward"], prices["view"]) + modules * np.where(backward, 0.0, prices["module"])
    slower = np.where(model, MODEL_CODE, 1.0)
    calls = own * np.where(kernel, slower, 1.0) + many + around * slower
    return np.asarray(calls if hooks is None else calls + hooks, np.float64)


def hook_seconds(profile: Profile, entered: Column, backward: Flags, again: float = 0.0) -> Seconds:
    """Host seconds of ZeRO-3's hooks before each item, [n]: it fetches each module's parameters before it runs and lets go of them after.

    Alike for modules with parameters and without: those of the latter take less (validation/kernels/deepspeed-hooks-cpu.csv), but plain layers and
    those with adapters have nearly the same share of them (docs/laws.md).

    Args: `entered` modules entered before each item, `again` share of those in backward whose forward is run again there.
    """
    price = profile.launch
    own = again * price["hooked"] + (1.0 - again) * price["hooked_backward"]
    return np.asarray(entered * np.where(backward, own, price["hooked"]), np.float64)
