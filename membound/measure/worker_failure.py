"""What made a rank fail, in words that outlive it: out of memory is told from other failures."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import torch

from membound.errors import MemboundError

GPU_MEMORY, HOST_MEMORY, REFUSED, ERROR = "gpu-memory", "host-memory", "refused", "error"

# How PyTorch's host allocator (c10/core/impl/alloc_cpu.cpp, c10/core/CPUAllocator.cpp), its pinned one and C++ itself say that the host has no more.
_HOST_WORDS: Final = ("DefaultCPUAllocator", "alloc_cpu.cpp", "bad_alloc", "cudaHostAlloc", "Cannot allocate memory")
# How libraries say it that do not raise PyTorch's own class: cuBLAS, NCCL, the CUDA runtime (CUDA Toolkit, cudaErrorMemoryAllocation).
_GPU_WORDS: Final = ("CUDA out of memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def describe(error: BaseException, rank: int, where: Mapping[str, Any]) -> dict[str, Any]:
    """`error` as JSON: kind (gpu-memory, host-memory, refused, error), type, text, rank, and where it struck."""
    text = str(error) or type(error).__name__
    return {"t": time.monotonic_ns(), "kind": kind(error, text), "type": type(error).__name__, "text": text[:2000], "rank": rank, **where}


def kind(error: BaseException, text: str) -> str:
    """Which of the four kinds `error` is of."""
    if isinstance(error, MemboundError):
        return REFUSED
    if isinstance(error, torch.OutOfMemoryError):
        return GPU_MEMORY
    if isinstance(error, MemoryError) or any(words in text for words in _HOST_WORDS):
        return HOST_MEMORY
    if isinstance(error, RuntimeError) and any(words in text for words in _GPU_WORDS):
        return GPU_MEMORY
    return ERROR
