"""Fused kernels of fms-acceleration's foak plugin, as far as memory goes: what each keeps for backward, allocates and overwrites.

For comparing with runs that used them; a study asks for them in the configuration (`losses`). The kernels themselves are Triton's: here
each is an operation of like shape on the same tensors.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn

_IGNORE: Final = -100


def apply(model: nn.Module) -> None:
    """Fused norms and rotary embedding in every layer of `model`."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _norm(module)
    code: Any = sys.modules[type(model).__module__]
    code.apply_rotary_pos_emb = rotate


def _norm(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(hidden: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = _RmsNorm.apply(hidden, module.weight)  # type: ignore[no-untyped-call]
        return normed

    return forward


class _RmsNorm(torch.autograd.Function):
    """Keeps its input and one fp32 number per row; writes the input's gradient over the output's (Unsloth's rms_layernorm.py)."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        scale = hidden.new_empty(hidden.shape[:-1].numel(), dtype=torch.float32)
        ctx.save_for_backward(hidden, scale)
        return torch.empty_like(hidden)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, _ = ctx.saved_tensors
        return grads[0].contiguous().mul_(hidden), None


def rotate(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and key turned where they stand, and their gradients likewise (Unsloth's rope_embedding.py). Shapes [B, H, T, D]."""
    return _Rotate.apply(query), _Rotate.apply(key)  # type: ignore[no-untyped-call]


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, each: torch.Tensor) -> torch.Tensor:
        return each.view_as(each)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0]


def linear_loss(model: nn.Module) -> None:
    """The head and the cross-entropy in one, in chunks of rows, gradients computed on the way forward (Liger's fused linear cross-entropy)."""

    def forward(input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> Any:
        from transformers.modeling_outputs import CausalLMOutput

        inner: Any = model.get_submodule(model.base_model_prefix)  # type: ignore[arg-type]
        hidden = inner(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        rows, targets = hidden[..., :-1, :].contiguous().flatten(0, -2), labels[..., 1:].contiguous().view(-1)
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        return CausalLMOutput(loss=_LinearLoss.apply(rows, head.weight, targets))  # type: ignore[no-untyped-call]

    model.forward = forward


class _LinearLoss(torch.autograd.Function):
    """Rows [N, H], weight [V, H], targets [N]. Keeps the gradients of rows and, if it trains, of the weight."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        count, width = rows.shape
        # Chunks of a power of two, about as many as V over H: fms-acceleration kernels/liger/fused_linear_cross_entropy_loss.py.
        pieces = -(-weight.shape[0] // width)
        size = 1 << (-(-count // pieces) - 1).bit_length()
        of_weight = torch.zeros_like(weight) if weight.requires_grad else None
        of_rows = torch.zeros_like(rows)
        losses = torch.zeros(count, dtype=torch.float32, device=rows.device)
        valid = (targets != _IGNORE).sum()
        for start in range(0, count, size):
            chunk = rows[start : start + size]
            logits = (chunk @ weight.t()).float()
            logits = logits.to(rows.dtype)
            alpha = 1 / valid
            losses[start : start + size] *= alpha
            scaled = logits * alpha
            of_rows[start : start + size] = scaled @ weight
            if of_weight is not None:
                torch.addmm(of_weight, logits.t(), chunk, out=of_weight)
        ctx.save_for_backward(of_rows, of_weight)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        of_rows, of_weight = ctx.saved_tensors
        return of_rows.mul_(grads[0]), None if of_weight is None else of_weight.mul_(grads[0]), None
