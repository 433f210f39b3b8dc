"""FlashAttention-2 on the ghost: the package needs a GPU even to be installed, so its operators and their autograd are modelled.

Shapes, what is saved, and what the backward takes are those of Dao-AILab/flash-attention 2.8: flash_attn/flash_attn_interface.py and
csrc/flash_attn/flash_api.cpp. All else (masks, removing and restoring padding) is Transformers' own code.
"""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F

from membound.ghost.private.hugging_face import flash_attention_is_there
from membound.ghost.private.operators import Modelled, define_operators

NOTE: Final = "flash_attn is modelled after its version 2.8: the package cannot run without a GPU"

_TOKENS_PER_BLOCK = 128  # flash_api.cpp: rows are rounded up to it


def install() -> None:
    """Register the operators and make Transformers find the package."""
    define_operators("flash_attn", _OPERATORS)
    flash_attention_is_there(flash_attn_func, flash_attn_varlen_func)


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor:
    """Attention of [B, T, H, D]; `k` and `v` may have fewer heads. Parameters as the package names them."""
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    out: torch.Tensor = _Attention.apply(q, k, v, (), (dropout_p, scale, causal))  # type: ignore[no-untyped-call]
    return out


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of rows laid end to end, [all tokens, H, D]; row i is between `cu_seqlens[i]` and `cu_seqlens[i + 1]`."""
    scale = q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    rows = (cu_seqlens_q, cu_seqlens_k, int(max_seqlen_q), int(max_seqlen_k))
    out: torch.Tensor = _Attention.apply(q, k, v, rows, (dropout_p, scale, causal))  # type: ignore[no-untyped-call]
    return out


class _Attention(torch.autograd.Function):
    """FlashAttnFunc and FlashAttnVarlenFunc: keep q, k, v, out, the row sums' logarithms and the dropout state."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: tuple[Any, ...], how: tuple[Any, ...]) -> torch.Tensor:
        width = q.shape[-1]
        q, k, v = (_in_eights(t) for t in (q, k, v))
        operators = torch.ops.flash_attn
        run = operators._flash_attn_varlen_forward if rows else operators._flash_attn_forward
        out, logarithms, _, dropped = run(q, k, v, *rows, *how)
        ctx.save_for_backward(q, k, v, out, logarithms, dropped, *rows[:2])
        ctx.longest, ctx.how = rows[2:], how
        padded: torch.Tensor = out
        return padded[..., :width] if width % 8 else padded

    @staticmethod
    def backward(ctx: Any, dout: torch.Tensor) -> tuple[Any, ...]:
        q, k, v, out, logarithms, dropped, *lengths = ctx.saved_tensors
        width = dout.shape[-1]
        gradients = [torch.empty_like(t) for t in (q, k, v)]
        operators = torch.ops.flash_attn
        run = operators._flash_attn_varlen_backward if lengths else operators._flash_attn_backward
        run(_in_eights(dout), q, k, v, out, logarithms, *gradients, *lengths, *ctx.longest, *ctx.how, dropped)
        return (*(g[..., :width] if width % 8 else g for g in gradients), None, None)


def _in_eights(tensor: torch.Tensor) -> torch.Tensor:
    """Heads are padded to a multiple of 8 elements."""
    width = tensor.shape[-1]
    return F.pad(tensor, (0, 8 - width % 8)) if width % 8 else tensor


def _forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
    batch, tokens, heads, _ = q.shape
    return _results(q, (batch, heads, tokens))


def _varlen_forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
    tokens, heads, _ = q.shape
    return _results(q, (heads, tokens))


def _results(q: torch.Tensor, rows: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    """out, softmax_lse, S_dmask (empty in training), rng_state."""
    return (
        torch.empty_like(q, memory_format=torch.contiguous_format),
        q.new_empty(rows, dtype=torch.float32),
        q.new_empty((0,)),
        q.new_empty((2,), dtype=torch.int64),
    )


def _backward(dout: torch.Tensor, q: torch.Tensor, *rest: Any) -> torch.Tensor:
    """The row sums of dout times out, softmax_d."""
    batch, tokens, heads, _ = q.shape
    return q.new_empty((batch, heads, _up(tokens, _TOKENS_PER_BLOCK)), dtype=torch.float32)


def _varlen_backward(
    dout: torch.Tensor, q: torch.Tensor, k: Any, v: Any, out: Any, lse: Any, dq: Any, dk: Any, dv: Any, rows: Any, *rest: Any
) -> Any:
    tokens, heads, _ = q.shape
    return q.new_empty((heads, tokens + _TOKENS_PER_BLOCK * (rows.shape[0] - 1)), dtype=torch.float32)


_QKV = "Tensor q, Tensor k, Tensor v"
_ROWS = "Tensor cu_seqlens_q, Tensor cu_seqlens_k, int max_seqlen_q, int max_seqlen_k"
_HOW = "float dropout_p, float softmax_scale, bool causal"
_GRADS = f"Tensor dout, {_QKV}, Tensor out, Tensor softmax_lse, Tensor(a!) dq, Tensor(b!) dk, Tensor(c!) dv"
_OPERATORS: Final[dict[str, Modelled]] = {
    f"_flash_attn_forward({_QKV}, {_HOW}) -> (Tensor, Tensor, Tensor, Tensor)": _forward,
    f"_flash_attn_varlen_forward({_QKV}, {_ROWS}, {_HOW}) -> (Tensor, Tensor, Tensor, Tensor)": _varlen_forward,
    f"_flash_attn_backward({_GRADS}, {_HOW}, Tensor rng_state) -> Tensor": _backward,
    f"_flash_attn_varlen_backward({_GRADS}, {_ROWS}, {_HOW}, Tensor rng_state) -> Tensor": _varlen_backward,
}


def backward_scratch(args: tuple[Any, ...]) -> int:
    """Bytes of the fp32 accumulator of dq, [B, rows rounded to 128, H, head rounded to 32 or 64], and of dk and dv for all heads."""
    q, k = args[1], args[2]
    *batch, tokens, heads, width = q.shape
    rows = batch[0] * _up(tokens, _TOKENS_PER_BLOCK) if batch else tokens + _TOKENS_PER_BLOCK * (args[9].shape[0] - 1)
    accumulator = 4 * rows * heads * _up(width, 32 if width <= 128 else 64)
    grouped = k.shape[-2] != heads
    return int(accumulator + (2 * k.numel() // k.shape[-2] * heads * k.element_size() if grouped else 0))


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
