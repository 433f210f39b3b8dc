"""Operators: the device that they run on, kernels and schemas that PyTorch lacks on it, formulas for FLOPs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils.flop_counter import flop_registry

DummyBackendModule = backend_registration._DummyBackendModule
FLOP_FORMULAS: dict[Any, Callable[..., int]] = flop_registry
Overload = torch._ops.OpOverload
memory_format_of: Callable[[torch.Tensor], torch.memory_format] = torch._prims_common.suggest_memory_format
"""The layout that a tensor's strides suggest."""
Modelled = Callable[..., Any]
"""Gives an operator's outputs as fresh tensors of the right shape, or None."""
_kernels: list[torch.library.Library] = []


def register_device(name: str, module: Any) -> None:
    """Make `name` a device with autograd, streams and events in a CPU build of PyTorch."""
    backend_registration._setup_privateuseone_for_python_backend(name, backend_module=module)


def whole_kernels(names: tuple[str, ...]) -> None:
    """Operators that have one kernel on CUDA, but that PyTorch takes apart on a device that registers none: register one.

    It is never run: fake tensors answer before any kernel is reached.
    """

    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("a ghost kernel was reached with real tensors")

    library = torch.library.Library("aten", "IMPL", "PrivateUse1")
    for name in names:
        library.impl(name, unreachable)
    _kernels.append(library)


def define_operators(namespace: str, operators: dict[str, Modelled]) -> None:
    """Register operators by schema; each is its model, and has no kernel: it runs on fake tensors only."""
    library = torch.library.Library(namespace, "FRAGMENT")
    for schema, model in operators.items():
        library.define(schema)
        torch.library.register_fake(f"{namespace}::{schema.partition('(')[0]}", model, lib=library)
    _kernels.append(library)
