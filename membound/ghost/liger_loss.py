"""Liger-Kernel's fused linear cross-entropy: head and loss chunk by chunk, gradients made in forward, logits never whole.

After Liger-Kernel 0.8.5, src/liger_kernel/ops/fused_linear_cross_entropy.py and src/liger_kernel/transformers/model/loss_utils.py. Its matrix
products are PyTorch's own, and so they are here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from membound.ghost import device

_IGNORED = -100


def causal_loss(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """LigerForCausalLMLoss: the mean loss of predicting each next token, from `hidden` [B, T, H] and the head's weight [V, H]."""
    shifted = F.pad(labels, (0, 1), value=_IGNORED)[..., 1:].contiguous()
    loss: torch.Tensor = _FusedLoss.apply(hidden.reshape(-1, hidden.shape[-1]), head, shifted.view(-1))  # type: ignore[no-untyped-call]
    return loss


def chunk_of(tokens: int, features: int, vocabulary: int) -> int:
    """Tokens whose logits exist at a time: as many as make the logits about as large as the hidden states."""
    chunks = -(-vocabulary // features)
    return min(1 << (-(-tokens // chunks) - 1).bit_length(), tokens)


class _FusedLoss(torch.autograd.Function):
    """LigerFusedLinearCrossEntropyFunction: keeps the finished gradients of the hidden states and of the head's weight."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        of_hidden = torch.zeros_like(hidden)
        of_weight = torch.zeros_like(weight) if weight.requires_grad and hidden.requires_grad else None
        losses = torch.zeros(hidden.shape[0], dtype=torch.float32, device=hidden.device)
        (target != _IGNORED).sum().item()
        size = chunk_of(hidden.shape[0], hidden.shape[1], weight.shape[0])
        storage = torch.empty((size, weight.shape[0]), dtype=hidden.dtype, device=hidden.device) if _writes_out(hidden, weight) else None
        for begin in range(0, hidden.shape[0], size):
            part = slice(begin, begin + size)
            _chunk(hidden[part], weight, target[part], losses[part], of_hidden[part], of_weight, storage)
        del storage
        ctx.save_for_backward(of_hidden, of_weight)
        return torch.sum(losses)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        of_hidden, of_weight = (None if kept is None else kept.detach() for kept in ctx.saved_tensors)
        if not torch.equal(gradient, torch.tensor(1.0).to(gradient.device)):
            for made in (of_hidden, of_weight):
                if made is not None:
                    torch.ops.liger_kernel.element_mul(made, gradient)
        return of_hidden, of_weight, None


def _chunk(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    target: torch.Tensor,
    losses: torch.Tensor,
    of_hidden: torch.Tensor,
    of_weight: torch.Tensor | None,
    storage: torch.Tensor | None,
) -> None:
    """Loss and gradients of one chunk. The logits [chunk, V] become their own gradient."""
    if storage is None:
        logits = hidden @ weight.t()
    else:
        logits = storage[: hidden.shape[0]]
        torch.mm(hidden, weight.t(), out=logits)
    torch.ops.liger_kernel.cross_entropy(logits, target, losses)
    if storage is None:
        of_hidden.copy_(logits @ weight)
    else:
        torch.mm(logits, weight, out=of_hidden)
    if of_weight is not None:
        _add_product(of_weight, logits.t(), hidden.to(logits.dtype))


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """Accumulate in place. Where `total` is fp32 and the factors are not, CUDA's product does so too (addmm's out_dtype, compute capability 8)."""
    if total.dtype == left.dtype:
        torch.addmm(total, left, right, out=total)
    else:
        torch.ops.liger_kernel.addmm_(total, left, right)


def _writes_out(hidden: torch.Tensor, weight: torch.Tensor) -> bool:
    """Whether products go into a buffer kept for all chunks: not where autocast would still cast (_can_use_mm_out)."""
    if hidden.dtype != weight.dtype:
        return False
    return not torch.is_autocast_enabled(device.NAME) or hidden.dtype == torch.get_autocast_dtype(device.NAME)
