"""Process groups of ranks of which one exists, device meshes, and DTensor."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


def group_size(args: tuple[Any, ...]) -> int:
    """Ranks in the process group among a collective's arguments; 0 if there is none."""
    import torch.distributed as dist

    for arg in args:
        if isinstance(arg, torch.ScriptObject):
            try:
                return int(dist.ProcessGroup.unbox(arg).size())
            except (RuntimeError, TypeError):
                continue
        if isinstance(arg, str) and args and arg.isdigit():
            try:
                return int(dist.distributed_c10d._resolve_process_group(arg).size())
            except (LookupError, RuntimeError, ValueError):
                continue
    return 0


def fake_process_group(size: int) -> None:
    """A process group of `size` ranks in which only rank 0 exists; its collectives move nothing."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())


def moved_nothing(args: tuple[Any, ...]) -> tuple[Any, Any]:
    """What the fake process group's collective gives that writes its first argument and returns it: that argument, and work that is done."""
    from torch._C._distributed_c10d import FakeWork

    return args[0], FakeWork().boxed()


def finished(out: tuple[Any, Any], held: Callable[[], bool]) -> tuple[Any, Any]:
    """What a real collective over gloo returned, once it is done and `held()` says that nobody holds its tensors any more.

    Its thread holds them for a moment longer, through the work that it was given: that is put in the past, a finished one in its place.
    """
    import torch.distributed as dist
    from torch._C._distributed_c10d import FakeWork

    results, work = out
    dist.Work.unbox(work).wait()
    del out, work
    while held():
        time.sleep(1e-4)
    return results, FakeWork().boxed()


def real_device_meshes() -> None:
    """A device mesh computes this rank's coordinates from real numbers: let it, outside the fake mode."""
    from torch.distributed import device_mesh
    from torch.utils._python_dispatch import _disable_current_modes

    def outside(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():
                return original(*args, **kwargs)

        return run

    device_mesh.init_device_mesh = outside(device_mesh.init_device_mesh)
    for name in ("__init__", "__getitem__", "_flatten"):
        setattr(device_mesh.DeviceMesh, name, outside(getattr(device_mesh.DeviceMesh, name)))


def unheard_sharding_propagation(pause: Callable[[], Any]) -> Callable[[], None]:
    """DTensor works out result shapes on whole-sized fake tensors that no GPU ever holds: `pause()` is entered while it does.

    Returns how to undo it.
    """
    from torch.distributed.tensor import _sharding_prop

    original = _sharding_prop.ShardingPropagator._propagate_tensor_meta_non_cached

    def quiet(self: Any, *args: Any, **kwargs: Any) -> Any:
        with pause():
            return original(self, *args, **kwargs)

    def undo() -> None:
        _sharding_prop.ShardingPropagator._propagate_tensor_meta_non_cached = original

    _sharding_prop.ShardingPropagator._propagate_tensor_meta_non_cached = quiet
    return undo
