"""Fake tensors and the dispatch mode: what they are made from, and what can be asked of one."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor as FakeTensor
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE_OF = torch.ops.prim.device.default
"""Not an operation: how a fake tensor is asked for its device."""


class DispatchMode(TorchDispatchMode):
    """A dispatch mode without the wrapper that hides it from torch.compile: nothing is compiled here, and it costs as much as the rest."""

    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def fake_mode() -> FakeTensorMode:
    """Tensors have shape, type and device but no bytes."""
    dispatch = FakeTensorMode.__torch_dispatch__
    while hasattr(dispatch, "__wrapped__"):  # as above
        dispatch = dispatch.__wrapped__
    FakeTensorMode.__torch_dispatch__ = dispatch
    FakeTensorMode.avoid_device_init = property(lambda self: True)  # else making a ghost tensor asks for real kernels
    return FakeTensorMode(allow_non_fake_inputs=True)


def lift_from_host() -> None:
    """In this thread, tensors made from Python numbers begin on the host, as the fake mode wants.

    The mode sees to it in the thread that enters it; autograd runs backward, and recomputation with it, in a thread of its own.
    """
    torch._C._set_only_lift_cpu_tensors(True)


class Makes:
    """Makes fake tensors of `mode`: as its own constructor does, whose checks and defaults take longer than all the rest."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._attributes: dict[torch.device, dict[str, Any]] = {}
        """By device, what the constructor has set of a tensor there, but for what it sets of all alike to None."""
        unsafe = mode._allow_unsafe_data_ptr_access
        self._guard = torch._C._set_warn_deprecated_on_mutable_data_ptr if unsafe else torch._C._set_throw_on_mutable_data_ptr
        self._reinterpret = torch._C._dynamo.guards._reinterpret_tensor

    def new(self, shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """A new tensor without bytes that plays to be on `device`."""
        with torch._C._DisableTorchDispatch():
            made = self._faked(torch.empty_strided(shape, stride, dtype=dtype, device="meta"), device)
        self._guard(made)  # its storage, once and for all views
        return made

    def view(self, base: FakeTensor, shape: tuple[int, ...], stride: tuple[int, ...], offset: int) -> torch.Tensor:
        """Another tensor on the storage of `base`, `offset` elements after where that begins."""
        with torch._C._DisableTorchDispatch():
            return self._faked(self._reinterpret(base, shape, stride, offset), base.fake_device)

    def _faked(self, empty: torch.Tensor, device: torch.device) -> torch.Tensor:
        attributes = self._attributes.get(device)
        if attributes is None:
            return self._first(empty, device)
        made = torch.Tensor._make_subclass(FakeTensor, empty, False, dispatch_device=True, device_for_backend_keys=device)
        vars(made).update(attributes)
        return made

    def _first(self, empty: torch.Tensor, device: torch.device) -> torch.Tensor:
        first = FakeTensor(self._mode, empty, device)
        held = vars(first)
        self._attributes[device] = {name: value for name, value in held.items() if value is not None}
        # The rest is a score of names that hold None: said once, on the class, a tensor takes half the time to make and to drop.
        for name in held.keys() - self._attributes[device].keys():
            setattr(FakeTensor, name, None)
        return first


def without_rules(mode: type) -> None:
    """Nobody registers rules for `mode`, a dispatch mode of ours: PyTorch need not look for one at each operation, which takes microseconds."""
    from torch._library import simple_registry

    original = simple_registry.find_torch_dispatch_rule

    def find(op: Any, kind: type) -> Any:
        return None if kind is mode else original(op, kind)

    simple_registry.find_torch_dispatch_rule = find


def device_type(tensor: torch.Tensor) -> str:
    """Type of the device that `tensor` is on, or plays to be on."""
    return tensor.fake_device.type if isinstance(tensor, FakeTensor) else tensor.device.type


def storage_key(storage: torch.UntypedStorage) -> int:
    """Identity of a block of memory while it lives."""
    return int(storage._cdata)


def holders(tensor: torch.Tensor) -> int:
    """How many hold `tensor`, Python counting as one."""
    return int(tensor._use_count())
