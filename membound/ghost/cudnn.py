"""cuDNN on the ghost: batch norm and LSTM as the fused operators that CUDA runs, where a device without cuDNN takes others, or many small ones;
and the layout of what convolutions give."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F

from membound.ghost import device
from membound.ghost.private.modules import replace_lstm
from membound.ghost.private.operators import FLOP_FORMULAS, memory_format_of
from membound.ghost.recorder import Handler, Recorder

NOTE: Final = "cuDNN's reserve space of an LSTM is assumed to be six numbers for each step, row and hidden feature: cuDNN alone knows"

# aten/src/ATen/native/Normalization.cpp, _select_batch_norm_backend.
_MOST_ROWS: Final = 880_801
# aten/src/ATen/native/cudnn/RNN.cpp: CUDNN_LSTM, and how many tensors a layer's weights are: for inputs, for states, and a bias of each.
_LSTM: Final = 2
_WITH_BIAS: Final = 4
# What backward needs again of each step: four gates, the cell and its tanh. Assumed; a reserve space has no documented layout.
_RESERVED: Final = 6

_plain_batch_norm = F.batch_norm


def install() -> None:
    """Put cuDNN's operators in place of what PyTorch falls back to, and count their arithmetic."""
    F.batch_norm = batch_norm
    replace_lstm(lstm)
    FLOP_FORMULAS[torch.ops.aten._cudnn_rnn] = _rnn_flops
    FLOP_FORMULAS[torch.ops.aten._cudnn_rnn_backward] = _rnn_backward_flops


def batch_norm(
    input: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor:
    """The operator that `F.batch_norm` picks on CUDA: cuDNN's, but PyTorch's own for bf16, for rows without pixels, and outside of training."""
    types = {t.dtype for t in (input, weight) if t is not None}
    fused = training and weight is not None and bias is not None and (running_mean is None) == (running_var is None)
    if not fused or torch.bfloat16 in types or input.dim() < 3 or input.shape[0] > _MOST_ROWS:
        return _plain_batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    out: torch.Tensor = torch.ops.aten.cudnn_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)[0]
    return out


def lstm(
    input: torch.Tensor,
    state: tuple[torch.Tensor, torch.Tensor],
    weights: list[torch.Tensor],
    biased: bool,
    layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """cuDNN's LSTM over whole rows. Under autocast every weight is cast anew in each call, as PyTorch flattens them into a 16-bit buffer."""
    hidden, cell = state
    if torch.is_autocast_enabled(device.NAME):
        dtype = torch.get_autocast_dtype(device.NAME)
        weights = [weight.to(dtype) for weight in weights]
        input, hidden, cell = input.to(dtype), hidden.to(dtype), cell.to(dtype)
    per_layer = _WITH_BIAS if biased else _WITH_BIAS // 2
    size = hidden.shape[-1]
    how: tuple[Any, ...] = (_LSTM, size, 0, layers, batch_first, dropout, training, bidirectional, [], None)
    out = torch.ops.aten._cudnn_rnn(input, weights, per_layer, None, hidden, cell, *how)
    return out[0], out[1], out[2]


def _forward(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Output, last hidden state and cell, what backward needs, and the flat weights."""
    input, hidden, cell, size, both = args[0], args[4], args[5], args[7], args[13]
    shape = (*input.shape[:2], size * (2 if both else 1))
    cells = input.shape[0] * input.shape[1] * hidden.shape[0] * size
    reserve = input.new_empty((_RESERVED * cells * input.element_size(),), dtype=torch.uint8)
    return input.new_empty(shape), torch.empty_like(hidden), torch.empty_like(cell), reserve, input.new_empty((0,))


def _backward(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Gradients of input, hidden state, cell and each weight: those that the last argument asks for."""
    input, weights, hidden, cell, asked = args[0], args[1], args[4], args[5], args[-1]
    wanted = [torch.empty_like(t) if ask else None for t, ask in zip((input, hidden, cell), asked, strict=False)]
    return (*wanted, [torch.empty_like(weight) for weight in weights] if asked[3] else [])


def _convolution(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Channels last if the images or the weight are (aten/src/ATen/native/ConvUtils.h, cudnn_conv_suggest_memory_format)."""
    return _laid_out(func(*args, **kwargs), args[0], args[1])


def _convolution_backward(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    to_images, to_weight, to_bias = func(*args, **kwargs)
    return _laid_out(to_images, args[1], args[2]), _laid_out(to_weight, args[1], args[2]), to_bias


def _laid_out(made: torch.Tensor | None, images: torch.Tensor, weight: torch.Tensor) -> torch.Tensor | None:
    if made is None or made.dim() != 4 or torch.channels_last not in map(memory_format_of, (images, weight)):
        return made
    return made.contiguous(memory_format=torch.channels_last)


HANDLERS: Final[dict[str, Handler]] = {
    "aten._cudnn_rnn.default": _forward,
    "aten._cudnn_rnn_backward.default": _backward,
    "aten.convolution.default": _convolution,
    "aten.convolution_backward.default": _convolution_backward,
}


def _rnn_flops(input: Any, weights: Any, *args: Any, **kwargs: Any) -> int:
    """Each step multiplies every matrix, for inputs and for states, by its row: two operations per weight."""
    return 2 * int(input.shape[0] * input.shape[1]) * sum(int(w.numel()) for w in weights if w.dim() == 2)


def _rnn_backward_flops(*args: Any, **kwargs: Any) -> int:
    """Gradients of what was multiplied, and of the weights."""
    return 2 * _rnn_flops(*args)
