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
    "tensor",
    "collective",
    "gather",
    "reduce",
    "hooked",
    "event",
    "copy",
    "sync",
    "host",
)
"""Calls that a profile prices: an operator called from Python with autograd on, or by autograd's own thread; a view, or one that autograd's
thread makes; entering and leaving a module; each tensor of a multi-tensor call; a collective, or one that
FSDP2's own Python prepares, or DeepSpeed's; a module that such an engine hooks; recording or waiting for an event; a copy; a
synchronisation beyond the wait itself; an operator on host tensors beyond its work."""

# Operands that a call has without being a multi-tensor one: beyond these, each costs the time of a tensor.
_FEW: Final = 8

Column = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def launch_seconds(
    profile: Profile, kind: Column, backward: Flags, views: Column, modules: Column, tensors: Column, hooked: bool = False
) -> npt.NDArray[np.float64]:
    """Host seconds of each item and of the views and modules before it; [n].

    Args: `kind` index into `KINDS` of each item, `backward` whether autograd's thread makes the call, `hooked` whether an engine fetches each
    module's parameters before it runs and lets go of them after, as ZeRO-3 does.
    """
    prices = profile.launch
    own = np.array([prices[name] for name in KINDS])[kind]
    own = np.where(backward & (kind == KINDS.index("kernel")), prices["backward"], own)
    many = np.maximum(tensors - _FEW, 0) * prices["tensor"]
    view = np.where(backward, prices["view_backward"], prices["view"])
    # Within autograd's thread no module is entered, but an engine's hooks run there too.
    module = np.where(backward, 0.0, prices["module"]) + (prices["hooked"] if hooked else 0.0)
    return np.asarray(own + many + views * view + modules * module, np.float64)
