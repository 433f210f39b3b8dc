"""Operators that cannot run fake: what stands in for each."""

from __future__ import annotations

import functools
from typing import Any, Final

import torch

from membound.ghost import cudnn, device
from membound.ghost.private.distributed import moved_nothing
from membound.ghost.private.fakes import device_type
from membound.ghost.recorder import Handler, Recorder, without_pinning
from membound.trace.schema import KIND


class Answers:
    """What the host reads back when a Program looks at a value that the ghost does not have.

    `masked`: rows of a micro-batch differ in length. `kept` is the share of a micro-batch's tokens that are no padding, `longest` the
    tokens of its longest row: those of `programs.data.planned`. `scaled`: backward starts from another number than 1. `sharded_scaling`:
    ranks agree on infinities in sharded gradients, and copy what they agreed on. Other answers are those of a healthy run: no infinities, a
    gradient norm of 1.
    """

    def __init__(self, masked: bool, kept: float = 1.0, longest: int = 0, scaled: bool = False, sharded_scaling: bool = False) -> None:
        self.kept = kept
        self.scaled = scaled
        self._longest = longest
        self._by_maker: dict[str, Any] = {
            "aten.all.default": not masked,
            "aten._amp_foreach_non_finite_check_and_unscale_.default": 0.0,
            **({"aten.copy_.default": 0.0} if sharded_scaling else {}),
        }

    def of(self, maker: str, tensor: torch.Tensor) -> Any:
        """The value of the one-element `tensor` that operator `maker` made."""
        if maker in self._by_maker:
            return self._by_maker[maker]
        if tensor.dtype == torch.bool:
            return False
        if maker == "aten.max.default" and not tensor.dtype.is_floating_point:
            return self._longest  # of the row lengths that attention without padding is given
        return 1.0 if tensor.dtype.is_floating_point else 0


# Return what they write, which is their first argument (torch/csrc/distributed/c10d/Ops.cpp).
_COLLECTIVES: Final = ("allreduce_", "broadcast_", "_allgather_base_", "_reduce_scatter_base_")
_PINNABLE: Final = ("empty.memory_format", "empty_like.default", "empty_strided.default", "new_empty.default", "zeros.default", "zeros_like.default")


def make(answers: Answers) -> dict[str, Handler]:
    """The handlers by operator name."""
    return {
        **cudnn.HANDLERS,
        "aten._local_scalar_dense.default": functools.partial(_item, answers),
        "aten.nonzero.default": functools.partial(_nonzero, answers),
        "aten.equal.default": functools.partial(_equal, answers),
        "aten._grouped_mm.default": _grouped_mm,
        "membound.nms.default": _looked_through,
        "membound.roi_align.default": _looked_through,
        "membound.roi_align_backward.default": _looked_through,
        "aten._pin_memory.default": _pin_memory,
        "aten.is_pinned.default": _is_pinned,
        **{f"aten.{name}": without_pinning for name in _PINNABLE},
        **{f"c10d.{name}.default": _collective for name in _COLLECTIVES},
    }


def _item(answers: Answers, recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _read_back(recorder, args[0])
    storage = recorder.storages.number_of(args[0])
    return answers.of(recorder.made_by.get(storage, "") if storage is not None else "", args[0])


def _nonzero(answers: Answers, recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensor = args[0]  # only padding masks are looked through: what is kept of them is known
    _read_back(recorder, tensor)
    return tensor.new_empty((round(tensor.numel() * answers.kept), tensor.dim()), dtype=torch.int64)


def _equal(answers: Answers, recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    _read_back(recorder, args[0])
    return not answers.scaled  # Liger asks whether the loss's gradient is 1


def _looked_through(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Which boxes are kept, and which regions lie on a level, the host asks before it goes on (programs/vision_operators.py, torchvision's nms)."""
    _read_back(recorder, next(each for each in args if isinstance(each, torch.Tensor)))
    return func(*args, **kwargs)


def _read_back(recorder: Recorder, tensor: torch.Tensor) -> None:
    """A real GPU synchronises where the host reads a value of its memory."""
    if device_type(tensor) == recorder.gpu:
        recorder.builder.add(KIND["sync"], 0, device.current_stream().id)


def _grouped_mm(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    left, right = args[0], args[1]
    if left.dtype == torch.bfloat16:
        return func(*args, **kwargs)
    # In other types CUDA multiplies group by group into one output, which fake tensors refuse
    # (aten/src/ATen/native/GroupedMMUtils.h, _grouped_mm_fallback).
    groups = [args[2].shape[0]] if left.dim() == right.dim() == 2 else []
    return left.new_empty((*groups, left.shape[-2], right.shape[-1]))


def _collective(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return moved_nothing(args)  # which the fake process group would take a millisecond to do


def _pin_memory(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return torch.empty_like(args[0])  # the recorder takes the operator's name for the kind of memory


def _is_pinned(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return recorder.storages.pinned(args[0])
