"""Forward of fused attention: softmax(Q K^T) V without the scores ever reaching HBM."""

from __future__ import annotations

from membound.cost import attention
from membound.cost.law import Kernels, Law, Priced
from membound.spec.machine import Gpu


class AttentionForward(Law):
    """PyTorch's three fused kernels and the flash_attn package's."""

    family = "attention forward"

    def knows(self, op: str) -> bool:
        return attention.kind_of(op) is not None and not attention.is_backward(op)

    def price(self, kernels: Kernels, gpu: Gpu) -> Priced:
        return attention.price(kernels, gpu, backward=False)
