"""Autocast on the ghost, with CUDA's rules: PyTorch registers none for a device of our own.

The lists are those of aten/src/ATen/autocast_mode.h for CUDA, for the operators that language models and the report's other classes
launch. As there, the 16-bit copy of an fp32 weight is kept until the outermost autocast block ends: it counts in the peak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from membound.ghost.private.autocast import (
    autocast_fallthrough,
    autocast_kernel,
    forget_autocast_kernels,
    has_autocast_kernel,
    is_view,
    on_autocast_exit,
)

_LOWER: Final = (
    "_convolution conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d.input conv_transpose3d.input convolution prelu "
    "addmm addmv addr matmul einsum mm mv linalg_vecdot linear addbmm baddbmm bmm chain_matmul linalg_multi_dot "
    "_thnn_fused_lstm_cell _thnn_fused_gru_cell lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"
).split()
_FP32: Final = (
    "__rpow__.Scalar __rpow__.Tensor acos asin cosh erfinv exp expm1 log log10 log2 log1p reciprocal rsqrt sinh tan "
    "pow.Tensor_Scalar pow.Tensor_Tensor pow.Scalar softplus layer_norm native_layer_norm group_norm norm.Scalar norm.ScalarOpt_dim "
    "cosine_similarity cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss kl_div l1_loss smooth_l1_loss huber_loss mse_loss "
    "margin_ranking_loss multilabel_margin_loss soft_margin_loss triplet_margin_loss multi_margin_loss binary_cross_entropy_with_logits "
    "dist pdist cdist renorm logsumexp softmax.int log_softmax.int cumprod cumsum prod sum sum.dim_IntList rms_norm"
).split()
# Of these, the ones that leave a type that is asked for as it is (fp32_set_opt_dtype): so does cross_entropy ask log_softmax for its input's.
_ASKED: Final = frozenset("softmax.int log_softmax.int cumprod cumsum prod sum sum.dim_IntList".split())
_PROMOTE: Final = "addcdiv addcmul atan2 bilinear cross dot grid_sampler index_put tensordot scatter_add cat stack vdot".split()

_cache: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}


def install(device: str) -> None:
    """Register CUDA's autocast rules for `device`."""

    for name in _LOWER:
        autocast_kernel(name, _casting(lambda args, kwargs: torch.get_autocast_dtype(device)))
    for name in _FP32:
        casting = _casting(lambda args, kwargs: torch.float32)
        autocast_kernel(name, _unless_asked(casting) if name in _ASKED else casting)
    for name in _PROMOTE:
        autocast_kernel(name, _casting(_widest))
    autocast_fallthrough()
    on_autocast_exit(_cache.clear)
    _answer_for(device)


def _answer_for(device: str) -> Callable[[], None]:
    """Who asks whether autocast is on, and names no device, means CUDA (PEFT's 4-bit layers do): let it be `device`. Returns how to undo it."""
    original = torch.is_autocast_enabled

    def enabled(kind: str = device) -> bool:
        return original(kind)

    vars(torch)["is_autocast_enabled"] = enabled
    return lambda: vars(torch).update(is_autocast_enabled=original)


@contextmanager
def completed_on_cpu() -> Iterator[None]:
    """CUDA's rules on the CPU too, where the CPU has none of its own: it computes in 16 bits what CUDA computes in 32."""
    for names, wanted in ((_FP32, lambda args, kwargs: torch.float32), (_PROMOTE, _widest)):
        for name in names:
            if not has_autocast_kernel(name, "CPU"):
                autocast_kernel(name, _casting(wanted), "CPU")
    undo = _answer_for("cpu")
    try:
        yield
    finally:
        undo()
        forget_autocast_kernels("CPU")


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`tensor` in `dtype`; the 16-bit copy of a leaf that trains, no view, is made once per autocast block."""
    if not tensor.is_floating_point() or tensor.dtype in {dtype, torch.float64}:
        return tensor
    # A weight that is transposed without a graph is a leaf too, but a view, of which none is kept (aten/src/ATen/autocast_mode.cpp, cached_cast).
    weight = tensor.requires_grad and tensor.is_leaf and not is_view(tensor) and tensor.dtype == torch.float32
    if not (weight and dtype != torch.float32 and torch.is_autocast_cache_enabled()):
        return tensor.to(dtype)
    known = _cache.get(id(tensor))
    if known is None:
        known = _cache[id(tensor)] = (tensor, tensor.to(dtype))
    return known[1]


def _casting(wanted: Callable[[Any, Any], torch.dtype]) -> Callable[..., Any]:
    def kernel(func: Any, *args: Any, **kwargs: Any) -> Any:
        dtype = wanted(args, kwargs)
        # Last argument first, as a call in C++ that GCC compiled evaluates them: the order in which copies are launched.
        named = {k: _cast_all(v, dtype) for k, v in reversed(kwargs.items())}
        placed = [_cast_all(v, dtype) for v in reversed(args)]
        return func(*reversed(placed), **named)

    return kernel


def _unless_asked(casting: Callable[..., Any]) -> Callable[..., Any]:
    def kernel(func: Any, *args: Any, **kwargs: Any) -> Any:
        asked = any(isinstance(value, torch.dtype) for value in (*args, *kwargs.values()))
        return func(*args, **kwargs) if asked else casting(func, *args, **kwargs)

    return kernel


def _cast_all(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return cast(value, dtype)
    if isinstance(value, list | tuple):
        return type(value)(_cast_all(v, dtype) for v in value)
    return value


def _widest(args: Any, kwargs: Any) -> torch.dtype:
    floats = [t.dtype for t in _flat((args, kwargs.values())) if t.is_floating_point()]
    return torch.float32 if torch.float32 in floats or not floats else floats[0]


def _flat(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        return []
    return [t for v in value for t in _flat(v)]
