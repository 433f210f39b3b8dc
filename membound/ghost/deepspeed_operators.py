"""DeepSpeed's compiled operators on the ghost: each leaves one instruction with the bytes that it reads and writes; none is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from deepspeed.ops.op_builder.builder import OpBuilder

from membound.errors import InputError
from membound.ghost.deepspeed_nvme import Disk
from membound.ghost.recorder import Recorder


def replace(recorder: Recorder) -> None:
    """From here on every operator builder of DeepSpeed loads a recording stand-in."""
    disk = Disk(recorder)
    made: dict[str, Any] = {}

    def load(builder: Any, verbose: bool = True) -> Any:
        name = str(builder.name)
        if name not in made:
            made[name] = _stand_in(name, recorder, disk)
        return made[name]

    _replace_load(OpBuilder, load)


def _replace_load(base: Any, load: Callable[..., Any]) -> None:
    for builder in (base, *base.__subclasses__()):
        if "load" in vars(builder):
            builder.load = load
        if builder is not base:
            _replace_load(builder, load)


def _stand_in(name: str, recorder: Recorder, disk: Disk) -> Any:
    if name in {"async_io", "pin_memory"}:
        return disk
    if name not in _OPERATORS:
        known = ", ".join(sorted((*_OPERATORS, "async_io")))
        raise InputError("recipe.deepspeed_config", name, f"the ghost GPU has no stand-in for this operator of DeepSpeed; it has {known}")
    return _OPERATORS[name](recorder)


class HostOptimizer:
    """CPU Adam, Adagrad and Lion: one pass over parameters, gradients and states in host memory.

    DeepSpeed calls `<name>_update(id, step, ..., parameters, gradients, states...)`; older versions `<name>_update_copy`, which also
    writes the 16-bit copy that goes back to the device (csrc/adam/cpu_adam.cpp).
    """

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name

    def __getattr__(self, called: str) -> Callable[..., int]:
        if not called.startswith(("create_", "destroy_", *(f"{self._name}_{verb}" for verb in ("update", "rollback")))):
            raise AttributeError(called)
        return self._update if "_update" in called or "_rollback" in called else self._silent

    def _silent(self, *args: Any) -> int:
        return 0

    def _update(self, *args: Any) -> int:
        parameters, gradients, *states = [arg for arg in args if isinstance(arg, torch.Tensor)]
        self._recorder.launch(
            "host", f"deepspeed.cpu_{self._name}", reads=(parameters, gradients, *states), writes=(parameters, *states), flops=_flops(parameters)
        )
        return 0


class DeviceOptimizer:
    """Fused Adam and Lion: `multi_tensor_<name>(chunk, flag, [gradients, parameters, states...], ...)`, one launch over all of them."""

    def __init__(self, recorder: Recorder, name: str) -> None:
        self._recorder, self._name = recorder, name

    def __getattr__(self, called: str) -> Callable[..., None]:
        if called != f"multi_tensor_{self._name}":
            raise AttributeError(called)
        return self._update

    def _update(self, chunk: int, flag: torch.Tensor, lists: list[list[torch.Tensor]], *args: Any) -> None:
        gradients, *rest = lists
        written = [tensor for tensors in rest for tensor in tensors]
        flops = sum(_flops(tensor) for tensor in rest[0])
        self._recorder.launch("kernel", f"deepspeed.fused_{self._name}", reads=(*gradients, *written), writes=written, flops=flops)


def _flops(parameters: torch.Tensor) -> float:
    # Additions and multiplications of one AdamW element: csrc/includes/cpu_adam.h, Step_AVX's scalar tail. Bytes bind, not these.
    return 14.0 * parameters.numel()


_OPERATORS: Final[dict[str, Callable[[Recorder], Any]]] = {
    "cpu_adam": lambda recorder: HostOptimizer(recorder, "adam"),
    "cpu_adagrad": lambda recorder: HostOptimizer(recorder, "adagrad"),
    "cpu_lion": lambda recorder: HostOptimizer(recorder, "lion"),
    "fused_adam": lambda recorder: DeviceOptimizer(recorder, "adam"),
    "fused_lion": lambda recorder: DeviceOptimizer(recorder, "lion"),
}
