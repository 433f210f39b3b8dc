"""Which of PyTorch's fused attention kernels a GPU really gets: the Trace names one that any GPU has, the dispatcher decides by the card.

From cuDNN 9.15.1 on PyTorch puts cuDNN's attention first on compute capability 9.0 and 10.0, for 16-bit operands, with a mask or without
(aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, check_prefer_cudnn_attention). It keeps what the others keep, so that memory is the same.
Where the mask itself is learned, as T5's position bias, cuDNN's has no gradient for it and the memory-efficient kernel stays: a backward tells by
what it writes. Of a forward that cannot be seen, and it is taken to be cuDNN's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from membound.cost.law import Kernels, Shape
from membound.spec.machine import Gpu

Attention = Literal["cudnn", "flash-2", "flash-1"]
"""The newest fused attention that software knows: cuDNN's where PyTorch prefers it, as today's does; FlashAttention 2, as PyTorch until then; or its
first version, as what was written before July 2023."""

FLASH_1: Final = 2.0
"""Time of FlashAttention's first version over the second's: "around 2x", 25 to 40 % of an A100's peak where the second reaches 50 to 73 %
(arXiv 2307.08691, abstract). On Hopper, whose own instructions neither uses, the same is assumed."""

_PREFERRING: Final = frozenset({"9.0", "10.0"})
_HALF: Final = frozenset({"bfloat16", "float16"})
_OTHERS: Final = ("aten._scaled_dot_product_flash_attention", "aten._scaled_dot_product_efficient_attention")
CUDNN: Final = "aten._scaled_dot_product_cudnn_attention"


def prefers_cudnn(gpu: Gpu) -> bool:
    """Whether PyTorch puts cuDNN's attention first on `gpu`."""
    return gpu.compute_capability in _PREFERRING


def dispatched(kernels: Kernels, gpu: Gpu) -> Kernels:
    """`kernels` under the names of those that run on `gpu`."""
    if not prefers_cudnn(gpu) or not any(op.startswith(_OTHERS) for op in kernels.op):
        return kernels
    return replace(kernels, op=tuple(_chosen(*each) for each in zip(kernels.op, kernels.reads, kernels.writes, strict=True)))


def _chosen(op: str, reads: tuple[Shape, ...], writes: tuple[Shape, ...]) -> str:
    # Gradients of queries, keys, values, and of the mask.
    if not reads or reads[0][0] not in _HALF or ("backward" in op and len(writes) > 3 and len(writes[3][1]) == 4):
        return op
    return next((op.replace(other, CUDNN) for other in _OTHERS if op.startswith(other)), op)
