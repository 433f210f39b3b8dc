"""Autocast: rules for operators on a device that PyTorch has none for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_autocast_libraries: dict[tuple[str, str], Any] = {}


def autocast_kernel(name: str, kernel: Callable[..., Any], backend: str = "PrivateUse1") -> None:
    """Under autocast on `backend` (the ghost's, or CPU), `aten::name` runs as `kernel(func, *args)`, where `func` runs without autocast."""
    packet, _, overload = name.partition(".")
    if not hasattr(torch.ops.aten, packet) or (overload or "default") not in getattr(torch.ops.aten, packet).overloads():
        return  # another version of PyTorch
    func = getattr(getattr(torch.ops.aten, packet), overload or "default")
    key = f"Autocast{backend}"
    library = _autocast_libraries.get(("aten", backend))
    if library is None:
        library = _autocast_libraries["aten", backend] = torch.library.Library("aten", "IMPL", key)
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return kernel(func, *args, **kwargs)

    library.impl(name, run)


def has_autocast_kernel(name: str, backend: str) -> bool:
    """Whether PyTorch itself has a rule for `aten::name` under autocast on `backend`."""
    key = f"Autocast{backend}"
    return bool(torch._C._dispatch_has_kernel(f"aten::{name}") and torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", key))


def forget_autocast_kernels(backend: str) -> None:
    """Take back what `autocast_kernel` gave to `backend`."""
    library = _autocast_libraries.pop(("aten", backend), None)
    if library is not None:
        library._destroy()


def autocast_fallthrough() -> None:
    """Operators without an autocast rule pass through."""
    library = _autocast_libraries["_", "PrivateUse1"] = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    library.fallback(torch.library.fallthrough_kernel)


def on_autocast_exit(heard: Callable[[], None]) -> None:
    """Call `heard` when the outermost autocast block ends."""
    original = torch.clear_autocast_cache

    def clear() -> None:
        heard()
        original()

    torch.clear_autocast_cache = clear


def is_view(tensor: torch.Tensor) -> bool:
    """Whether autograd knows `tensor` as a view of another."""
    return tensor._is_view()
