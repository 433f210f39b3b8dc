"""Backward of fused attention: the scores once more, and the gradients of values, scores, queries and keys."""

from __future__ import annotations

from membound.cost import attention
from membound.cost.law import Kernels, Law, Priced
from membound.spec.machine import Gpu


class AttentionBackward(Law):
    """Backwards of PyTorch's three fused kernels and of the flash_attn package's."""

    family = "attention backward"

    def knows(self, op: str) -> bool:
        return attention.kind_of(op) is not None and attention.is_backward(op)

    def price(self, kernels: Kernels, gpu: Gpu) -> Priced:
        return attention.price(kernels, gpu, backward=True)
