"""bitsandbytes on the ghost: its registered operators run fake; its 4-bit parameter and its paged memory, which hold real bytes, do not."""

from __future__ import annotations

from typing import Any

import torch

from membound.ghost.private.fakes import FakeTensor
from membound.ghost.recorder import Recorder
from membound.trace.schema import PLACE


class Params4bit(FakeTensor):
    """Stands for `bitsandbytes.nn.Params4bit`: the same name, attributes and quantisation, over a fake tensor."""

    @staticmethod
    def make(data: torch.Tensor, requires_grad: bool = False, quant_state: Any = None, blocksize: int | None = None, **options: Any) -> Any:
        """What calling `bitsandbytes.nn.Params4bit` gives: the dense weight, to be quantised when it is first moved."""
        made: Any = torch.nn.Parameter(data, requires_grad=False)
        made.__class__ = Params4bit
        made.blocksize = blocksize or 64
        made.compress_statistics = options.get("compress_statistics", True)
        made.quant_type = options.get("quant_type", "fp4")
        made.quant_storage = options.get("quant_storage", torch.uint8)
        made.quant_state = quant_state
        made.bnb_quantized = options.get("bnb_quantized", False)
        made.module = options.get("module")
        return made

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Move; the first move onto a device quantises, as there."""
        held = vars(self)
        device = kwargs.get("device", args[0] if args else None)
        if isinstance(device, torch.dtype) or device is None or held.get("bnb_quantized"):
            return self
        return _quantised(self, torch.device(device))


def _quantised(dense: Any, device: torch.device) -> Any:
    import bitsandbytes

    packed, state = bitsandbytes.functional.quantize_4bit(
        _plain(dense).to(device),
        blocksize=dense.blocksize,
        compress_statistics=dense.compress_statistics,
        quant_type=dense.quant_type,
        quant_storage=dense.quant_storage,
    )
    options = {name: vars(dense)[name] for name in ("blocksize", "compress_statistics", "quant_type", "quant_storage", "module")}
    made = Params4bit.make(packed, quant_state=state, bnb_quantized=True, **options)
    if dense.module is not None:
        dense.module.quant_state = state
    return made


def _plain(parameter: Any) -> torch.Tensor:
    with torch.no_grad():
        data: torch.Tensor = parameter.data
    return data.contiguous()


def install(recorder: Recorder) -> None:
    """Put the stand-ins where bitsandbytes and its users look."""
    import bitsandbytes

    for module in (bitsandbytes.nn.modules, bitsandbytes.nn):
        vars(module)["Params4bit"] = _Maker
    _page(recorder, vars(bitsandbytes.functional))


def _page(recorder: Recorder, functional: dict[str, Any]) -> None:
    """Paged optimizer states: CUDA managed memory, which PyTorch takes for host tensors and its allocator never sees (get_paged)."""

    def get_paged(*shape: int, dtype: torch.dtype = torch.float32, device: Any = None) -> Any:
        made: Any = torch.empty(shape, dtype=dtype)
        recorder.builder.place(recorder.storages.of(made), PLACE["managed"])
        made.is_paged, made.page_deviceid = True, 0
        return made

    def fill(tensor: torch.Tensor, value: float, device: Any = None, prefetch: bool = True) -> None:
        recorder.launch("kernel", "bitsandbytes.fill", writes=(tensor,))
        torch.accelerator.synchronize()

    functional |= {"get_paged": get_paged, "fill": fill, "prefetch_tensor": lambda tensor, to_cpu=False: None}


class _MakerType(type):
    """Makes `isinstance(x, Params4bit)` and `Params4bit(...)` both work on the stand-in."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return Params4bit.make(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Params4bit)


class _Maker(metaclass=_MakerType):
    pass
