"""DeepSpeed's view of the ghost GPU: CUDA's answers to every question, without CUDA.

The class derives from DeepSpeed's CUDA accelerator, so that whatever is not replaced here is what CUDA says. Host tensors stay on
`cpu` and device tensors on `ghost`: that is how the two memories are told apart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from deepspeed.accelerator.cuda_accelerator import CUDA_Accelerator

from membound.ghost import device as ghost
from membound.ghost.recorder import Recorder

# Only questions such as "does this flat buffer fit on the device?" read it: the Trace knows no machine, so the answer is always yes.
_PLENTY = 1 << 50


class GhostAccelerator(CUDA_Accelerator):  # type: ignore[misc]
    """What `deepspeed.accelerator.get_accelerator()` returns on the ghost."""

    supports_nvtx_domain = False

    def __init__(self, recorder: Recorder) -> None:
        # Not CUDA's own: it starts NVML.
        self._name = ghost.NAME
        self._communication_backend_name = "nccl"
        self._compile_backend = "inductor"
        self._nvtx_domains: dict[str, Any] = {}
        self._recorder = recorder
        self._backend = torch.get_device_module(ghost.NAME)

    # -- devices ----------------------------------------------------------------------------------------------------------

    def device_name(self, device_index: Any = None) -> str:
        return ghost.NAME if device_index is None else f"{ghost.NAME}:{device_index}"

    def device(self, device_index: Any = None) -> torch.device:
        return torch.device(ghost.NAME, int(device_index or 0))

    def set_device(self, device_index: Any) -> None: ...

    def current_device(self) -> int:
        return 0

    def current_device_name(self) -> str:
        return f"{ghost.NAME}:0"

    def device_count(self) -> int:
        return int(self._backend.device_count())

    def synchronize(self, device_index: Any = None) -> None:
        self._backend.synchronize()

    def is_available(self) -> bool:
        return True

    def communication_backend_version(self) -> tuple[int, int, int]:
        # NCCL of PyTorch 2.13's CUDA wheels (torch.cuda.nccl.version()); read only to choose communication data types.
        return (2, 28, 9)

    def on_accelerator(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == ghost.NAME

    # -- random numbers ---------------------------------------------------------------------------------------------------

    def set_rng_state(self, new_state: Any, device_index: Any = None) -> None: ...

    def get_rng_state(self, device_index: Any = None) -> torch.Tensor:
        state: torch.Tensor = self._backend.get_rng_state()
        return state

    def manual_seed(self, seed: int) -> None: ...

    def manual_seed_all(self, seed: int) -> None: ...

    def initial_seed(self) -> int:
        return 0

    def default_generator(self, device_index: Any) -> torch.Generator:
        return torch.default_generator

    # -- streams and events -----------------------------------------------------------------------------------------------

    @property
    def Stream(self) -> type[ghost.Stream]:
        return ghost.Stream

    @property
    def Event(self) -> type[ghost.Event]:
        return ghost.Event

    def stream(self, stream: ghost.Stream | None) -> Any:
        return self._backend.stream(stream)

    def current_stream(self, device_index: Any = None) -> ghost.Stream:
        return ghost.current_stream()

    def default_stream(self, device_index: Any = None) -> Any:
        return self._backend.default_stream()

    # -- memory -----------------------------------------------------------------------------------------------------------

    def empty_cache(self) -> None:
        self._backend.empty_cache()

    def _nothing(self, device_index: Any = None) -> int:
        return 0

    memory_allocated = max_memory_allocated = memory_cached = max_memory_cached = memory_reserved = max_memory_reserved = _nothing
    reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats = _nothing

    def memory_stats(self, device_index: Any = None) -> dict[str, int]:
        return {}

    def total_memory(self, device_index: Any = None) -> int:
        return _PLENTY

    def available_memory(self, device_index: Any = None) -> int:
        return _PLENTY

    def _torch_pin_memory(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._torch_is_pinned(tensor):
            return tensor
        # As Tensor.pin_memory: new page-locked storage, and a copy by the host. Named, for zero.Init makes the GPU the default device.
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
        with torch.no_grad():
            pinned.copy_(tensor)
        return pinned

    def _torch_empty_pinned(self, tensor: torch.Tensor, shape: Any) -> torch.Tensor:
        return torch.empty(shape, dtype=tensor.dtype, device="cpu", pin_memory=True)

    def _torch_is_pinned(self, tensor: torch.Tensor) -> bool:
        return self._recorder.storages.pinned(tensor)

    def register_host_memory(self, address: int, num_bytes: int) -> bool:
        return True

    def unregister_host_memory(self, address: int) -> None: ...

    # -- data types -------------------------------------------------------------------------------------------------------

    def is_bf16_supported(self) -> bool:
        return True

    def is_fp16_supported(self) -> bool:
        return True

    def is_triton_supported(self) -> bool:
        return False

    def prefer_triton_grouped_mm(self) -> bool:
        return False

    def _new(self, dtype: torch.dtype) -> Callable[..., torch.Tensor]:
        return partial(torch.tensor, dtype=dtype, device=self.current_device_name())

    @property
    def BFloat16Tensor(self) -> Callable[..., torch.Tensor]:
        return self._new(torch.bfloat16)

    @property
    def ByteTensor(self) -> Callable[..., torch.Tensor]:
        return self._new(torch.uint8)

    @property
    def DoubleTensor(self) -> Callable[..., torch.Tensor]:
        return self._new(torch.float64)

    @property
    def FloatTensor(self) -> Callable[..., torch.Tensor]:
        return self._new(torch.float32)

    @property
    def HalfTensor(self) -> Callable[..., torch.Tensor]:
        return self._new(torch.float16)

    @property
    def IntTensor(self) -> Callable[..., torch.Tensor]:
        return self._new(torch.int32)

    @property
    def LongTensor(self) -> Callable[..., torch.Tensor]:
        return self._new(torch.int64)

    # -- the rest ---------------------------------------------------------------------------------------------------------

    def range_push(self, msg: str, domain: Any = None, category: Any = None) -> None: ...

    def range_pop(self, domain: Any = None) -> None: ...

    def lazy_call(self, callback: Callable[[], Any]) -> None:
        callback()

    def is_current_stream_capturing(self) -> bool:
        return False

    def create_graph(self) -> None: ...

    def capture_to_graph(self, graph: Any, pool: Any = None, stream: Any = None) -> Any:
        return contextlib.nullcontext()

    def replay_graph(self, graph: Any) -> None: ...
