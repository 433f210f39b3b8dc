"""What the host pays for each call before the GPU hears of it: Python, the dispatcher, autograd, the driver's launch."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.profile import Profile

KINDS: Final = ("kernel", "backward", "view", "view_backward", "module", "tensor", "collective", "event", "copy", "sync", "host")
"""Calls that a profile prices: an operator called from Python with autograd on, or by autograd's own thread; a view, or one that autograd's
thread makes; entering and leaving a module; each tensor of a multi-tensor call; a collective; recording or waiting for an event; a copy; a
synchronisation beyond the wait itself; an operator on host tensors beyond its work."""

# Operands that a call has without being a multi-tensor one: beyond these, each costs the time of a tensor.
_FEW: Final = 8

Column = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def launch_seconds(profile: Profile, kind: Column, backward: Flags, views: Column, modules: Column, tensors: Column) -> npt.NDArray[np.float64]:
    """Host seconds of each item and of the views and modules before it; [n].

    Args: `kind` index into `KINDS` of each item, `backward` whether autograd's thread makes the call.
    """
    prices = profile.launch
    own = np.array([prices[name] for name in KINDS])[kind]
    own = np.where(backward & (kind == KINDS.index("kernel")), prices["backward"], own)
    many = np.maximum(tensors - _FEW, 0) * prices["tensor"]
    view = np.where(backward, prices["view_backward"], prices["view"])
    # Within autograd's thread no module is entered.
    return np.asarray(own + many + views * view + np.where(backward, 0, modules) * prices["module"], np.float64)
