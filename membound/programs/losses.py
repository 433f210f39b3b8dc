"""Next-token losses of other software than the installed one, for comparing with runs that used them.

A study may ask for one in the configuration: `"membound": {"loss": NAME}`, where NAME is one of `LOSSES` or 'fused-linear'. `"fused": true`
asks for the fused kernels of `fused`, `"upcast": false` for adapters on a quantised model without PEFT's upcast of the rest. Each does what
that code does to memory: what is copied, what is kept for backward, and what is overwritten. Nothing here serves a user's own Job, whose loss
is that of the installed Transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import nn

from membound.programs import fused

Loss = Callable[..., torch.Tensor]
_IGNORE: Final = -100
# Largest block of a Triton kernel's row: fms-acceleration kernels/unsloth/cross_entropy_loss.py, MAX_FUSED_SIZE.
_BLOCK: Final = 65536


def apply(model: nn.Module, options: dict[str, Any]) -> None:
    """Give `model` the loss and kernels that `options` name, if they name any."""
    if options.get("fused"):
        fused.apply(model)
    name = options.get("loss")
    if name == "fused-linear":
        fused.linear_loss(model)
    if name in {None, "fused-linear"}:
        return
    upcasts, loss = LOSSES[name]
    model.loss_function = loss  # type: ignore[assignment]
    if upcasts:
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        head.register_forward_hook(lambda module, args, logits: logits.float())


def shifted(logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **kwargs: Any) -> torch.Tensor:
    """Logits but for the last token's, copied whole, then PyTorch's cross-entropy. Logits [B, T, V], labels [B, T]."""
    rows, targets = _shift(logits, labels)
    return nn.functional.cross_entropy(rows.view(-1, vocab_size), targets, ignore_index=_IGNORE)


def shifted_upcast(logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **kwargs: Any) -> torch.Tensor:
    """As `shifted`, with the upcast to fp32 that autocast puts before a cross-entropy."""
    rows, targets = _shift(logits, labels)
    return nn.functional.cross_entropy(rows.view(-1, vocab_size).float(), targets, ignore_index=_IGNORE)


def shifted_in_place(logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, **kwargs: Any) -> torch.Tensor:
    """As `shifted`, but the gradient overwrites the copied logits."""
    rows, targets = _shift(logits, labels)
    losses: torch.Tensor = _InPlace.apply(rows.view(-1, vocab_size), targets)  # type: ignore[no-untyped-call]
    return losses.sum() / torch.count_nonzero(targets != _IGNORE)


def _shift(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return logits[..., :-1, :].contiguous(), labels[..., 1:].contiguous().view(-1)


class _InPlace(torch.autograd.Function):
    """Cross-entropy per row in fp32 from logits of any type; keeps the logits and one number per row, and writes the gradient into the logits.

    Two fused kernels; here each is one operation on the logits where they stand.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        chunks = -(-logits.shape[1] // _BLOCK)
        parts = logits.new_empty((logits.shape[0], chunks), dtype=torch.float32)
        losses = logits.new_empty(logits.shape[0], dtype=torch.float32)
        if chunks > 1:
            parts = torch.logsumexp(parts, dim=1)
            losses += parts
            losses.masked_fill_(targets == _IGNORE, 0)
        ctx.save_for_backward(logits, parts, targets)
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (logits, _, _) = ctx.saved_tensors
        return logits.mul_(grads[0].unsqueeze(1)), None


LOSSES: Final[dict[str, tuple[bool, Loss]]] = {
    # Transformers 4.45 modeling_gpt_bigcode.py, GPTBigCodeForCausalLM.forward.
    "transformers-4.45-gpt": (False, shifted),
    # The same under torch.autocast.
    "transformers-4.45-gpt-autocast": (False, shifted_upcast),
    # Transformers 4.45 modeling_llama.py and modeling_mixtral.py: `lm_head(...).float()`, then the same copy.
    "transformers-4.45-llama": (True, shifted),
    # The same with torch.nn.CrossEntropyLoss replaced: fms-acceleration kernels/unsloth/cross_entropy_loss.py, FastCrossEntropyLoss.
    "transformers-4.45-gpt-in-place": (False, shifted_in_place),
    "transformers-4.45-llama-in-place": (True, shifted_in_place),
}
"""Name: whether the head's output is upcast to fp32 at once, and the loss."""
