"""What CUDA would choose and the ghost must be told: fused attention, fused dropout, multi-tensor optimizers.

Each choice is listed in `CHOICES` with its reason; the test that holds the ghost against a real CPU run allows these differences and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
import torch.nn.functional as F

from membound.ghost import cudnn, detection, device, flash_attention
from membound.ghost.private.operators import whole_kernels
from membound.ghost.private.optimizers import allow_multi_tensor_optimizers

CHOICES: Final[dict[str, str]] = {
    # Default order: flash, efficient, math, cuDNN (aten/src/ATen/Context.h, sdp_priority_order); cuDNN comes first only where the variable
    # TORCH_CUDNN_SDPA_PREFERRED asks for it (sdp_utils.cpp, check_prefer_cudnn_attention).
    "attention": "scaled_dot_product_attention runs CUDA's flash kernel (no mask, 16-bit) or memory-efficient kernel (mask, or 32-bit), by PyTorch's "
    "default order; on every GPU alike, though capability 8.6, 8.9 and 12.0 refuse flash for heads of 193 to 224, or wider with dropout",
    "dropout": "F.dropout runs the fused kernel that keeps a boolean mask",
    "optimizer": "optimizers and gradient clipping use multi-tensor (foreach) kernels",
    "cuDNN": "batch norm (but in bf16) and LSTM are cuDNN's fused operators",
    "activations": "the backward of SiLU and Mish is one kernel",
}

_EFFICIENT_ALIGNMENT = 8  # elements: aten/src/ATen/native/transformers/attention.cpp, pad_bias


_math = F.scaled_dot_product_attention


def apply() -> None:
    """Put CUDA's choices in place of what a device without kernels falls back to."""
    F.scaled_dot_product_attention = attention
    F.dropout = dropout
    cudnn.install()
    allow_multi_tensor_optimizers()
    whole_kernels(("silu_backward", "mish_backward", "native_channel_shuffle"))


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """The kernel that `F.scaled_dot_product_attention` picks on CUDA. Shapes as there: [B, H, T, D]."""
    if torch.is_autocast_enabled(device.NAME):
        dtype = torch.get_autocast_dtype(device.NAME)
        # Last argument first, as in autocast.py.
        attn_mask = attn_mask.to(dtype) if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
        value, key, query = value.to(dtype), key.to(dtype), query.to(dtype)
    flash = attn_mask is None and query.dtype in {torch.float16, torch.bfloat16} and query.shape[-1] <= 256
    # Fused kernels want as many key heads as query heads; flash alone also takes grouped queries, if told so
    # (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp, check_batch_size_and_num_heads_dense).
    if key.shape[:-2] != query.shape[:-2] and not (flash and enable_gqa):
        return _math(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    if flash:
        return _flash(query, key, value, dropout_p, is_causal, scale)
    bias = None if attn_mask is None else _bias(attn_mask, query, key)
    training = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    out: torch.Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, training, dropout_p, is_causal, scale=scale)[
        0
    ]
    return out


def _flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout_p: float, is_causal: bool, scale: float | None) -> torch.Tensor:
    width = q.shape[-1]
    scale = width**-0.5 if scale is None else scale
    if width % 8:  # the flash kernel takes head sizes that are multiples of 8: PyTorch pads
        q, k, v = (F.pad(t, (0, 8 - width % 8)) for t in (q, k, v))
    out: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, False, scale=scale)[0]
    return out[..., :width] if out.shape[-1] != width else out


def _bias(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """An additive bias in the query's type, its last dimension padded to the kernel's alignment, broadcast over heads."""
    if mask.dtype == torch.bool:
        zero, never = (torch.scalar_tensor(value, dtype=query.dtype, device=query.device) for value in (0.0, float("-inf")))
        mask = torch.where(mask, zero, never)
    tokens = mask.shape[-1]
    if tokens % _EFFICIENT_ALIGNMENT:
        mask = F.pad(mask, (0, _EFFICIENT_ALIGNMENT - tokens % _EFFICIENT_ALIGNMENT))[..., :tokens]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])


def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    """Fused dropout: output and a boolean mask, as CUDA's kernel keeps it."""
    if not training or p == 0.0:
        return input
    out: torch.Tensor = torch.native_dropout(input, p, True)[0]
    return input.copy_(out) if inplace else out


def _flash_backward(args: tuple[Any, ...]) -> int:
    """FlashAttention-2's backward takes an fp32 accumulator for dQ and the row sums of dO*O, over rows padded to 128.

    With grouped queries it also expands dK and dV to all heads (aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp).
    """
    query, key = args[1], args[2]
    batch, heads, tokens, width = query.shape
    rows, columns = _up(tokens, 128), _up(width, 32 if width <= 128 else 64)
    accumulator = 4 * batch * heads * rows * (columns + 1)
    expanded = 2 * batch * key.shape[2] * heads * width * query.element_size() if key.shape[1] != heads else 0
    return int(accumulator + expanded)


def _efficient_backward(args: tuple[Any, ...]) -> int:
    """The memory-efficient backward takes the row sums, and an fp32 accumulator where a head is wider than its tile (kernel_backward.h)."""
    query = args[1]
    batch, heads, tokens, width = query.shape
    sums = 4 * batch * heads * _up(tokens, 32)
    return int(sums + (4 * batch * heads * _up(tokens, 64) * width if width > 128 else 0))


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _dequantised(args: tuple[Any, ...]) -> int:
    """bitsandbytes' 4-bit matmul dequantises the whole weight first when it has many rows to multiply."""
    activation, shape = args[0], args[2]
    return int(shape[0] * shape[1] * activation.element_size())


# Memory that CUDA's kernel of an operator takes from the caching allocator beyond its outputs, in bytes, from the operator's arguments.
HIDDEN: Final[dict[str, Callable[[tuple[Any, ...]], int]]] = {
    "aten._scaled_dot_product_flash_attention_backward.default": _flash_backward,
    "aten._scaled_dot_product_efficient_attention_backward.default": _efficient_backward,
    "bitsandbytes.gemm_4bit.default": _dequantised,
    "membound.roi_align.default": detection.forward_scratch,
    "membound.roi_align_backward.default": detection.backward_scratch,
    "flash_attn._flash_attn_backward.default": flash_attention.backward_scratch,
    "flash_attn._flash_attn_varlen_backward.default": flash_attention.backward_scratch,
}
