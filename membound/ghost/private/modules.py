"""Modules and tensors: moving fake parameters to a device, cuDNN's LSTM, streams that a tensor is used on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch


def replace_module_apply() -> None:
    """`nn.Module._apply` swaps tensors in place, which fake parameters refuse; replace it by one that makes new parameters."""
    torch.nn.Module._apply = _apply


def _apply(self: torch.nn.Module, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> torch.nn.Module:
    if recurse:
        for child in self.children():
            child._apply(fn)
    for name, parameter in list(self._parameters.items()):
        if parameter is not None:
            _apply_to_parameter(self, name, parameter, fn)
    for name, buffer in list(self._buffers.items()):
        if buffer is not None:
            self._buffers[name] = fn(buffer)
    return self


def _apply_to_parameter(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter, fn: Callable[[torch.Tensor], torch.Tensor]) -> None:
    held = vars(parameter)
    if "moved_to" in held:  # tied weights: the same parameter under another name
        module._parameters[name] = held["moved_to"]
        return
    if type(parameter).__name__ == "Params4bit":  # moves with its scales, by its own rule
        module._parameters[name] = fn(parameter)
        return
    with torch.no_grad():
        moved = fn(parameter.data)
    # Identity is kept where nothing changes: engines hold references to parameters.
    if (moved.device, moved.dtype) != (parameter.device, parameter.dtype):
        new = torch.nn.Parameter(moved, requires_grad=parameter.requires_grad)
        module._parameters[name] = held["moved_to"] = new


def replace_record_stream(heard: Callable[[torch.Tensor, Any], None]) -> None:
    """`Tensor.record_stream` has no kernel on the ghost: tell `heard`."""
    torch.Tensor.record_stream = lambda self, stream: heard(cast(torch.Tensor, self), stream)


def replace_lstm(lstm: Callable[..., Any]) -> None:
    """`nn.LSTM` calls a function of PyTorch's C++ that asks for CUDA before it takes cuDNN: let it call `lstm`, packed rows excepted."""
    original = torch._VF.lstm

    def run(*args: Any) -> Any:
        packed = isinstance(args[1], torch.Tensor)  # then the second argument counts rows
        return original(*args) if packed else lstm(*args)

    torch._VF.lstm = run
