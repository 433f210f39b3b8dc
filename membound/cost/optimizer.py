"""Optimizers on the GPU: all tensors of a list in a few launches, each element read and written once per operation."""

from __future__ import annotations

import math
from typing import Final, final

import numpy as np

from membound.cost.law import Array, Kernels, Shape
from membound.cost.streaming import Streaming

_NAMES: Final = """
    add add_ addcdiv addcdiv_ addcmul addcmul_ div div_ lerp lerp_ mul mul_ neg neg_ pow pow_ reciprocal reciprocal_ sqrt sqrt_ sub sub_ sign
    maximum maximum_ clamp_min clamp_min_ minimum abs norm max
""".split()

_FUSED: Final = frozenset(
    {
        "aten._fused_adamw_", "aten._fused_adam_", "aten._fused_sgd_", "aten._amp_foreach_non_finite_check_and_unscale_", "aten._amp_update_scale_",
        "deepspeed.fused_adam", "deepspeed.fused_lion", "bitsandbytes.optimizer_update_8bit_blockwise", "bitsandbytes.optimizer_update_32bit",
    }
)  # fmt: skip

# Elements of a tensor that one block of threads goes through; tensors of one launch for one to five lists, and blocks of one, whose arguments must
# fit into a launch's constant memory (aten/src/ATen/native/cuda/MultiTensorApply.cuh). PyTorch 2.11 for CUDA 13 keeps to these: on an H200 lists of
# 448 chunks take 5 launches of 22 us where they are one list, 7 where they are two, 10 where three (validation/kernels/h200.csv); the optimizer of
# 3.4e9 elements, 161 (validation/h200/profiles).
_CHUNK: Final = 65536
_TENSORS: Final = (110, 64, 48, 36, 30)
_BLOCKS: Final = 320
# `fixed` is what memory idles at the end of a launch of all its blocks, some SMs having three and others two. Where tensors ran out before the
# blocks, most SMs have one or none: so many times that. And tensors far below a chunk still take a kernel's start. All three from the same
# measurements.
_FEW: Final = 1.6
_LEAST: Final = 0.35


@final
class Optimizer(Streaming):
    """Multi-tensor and fused optimizers, multi-tensor norms, gradient scaling."""

    family = "optimizer"
    operators = frozenset(f"aten._foreach_{name}" for name in _NAMES) | _FUSED

    def elements(self, kernels: Kernels) -> Array:
        # Of the list that is gone through, not of its largest tensor.
        lists = zip(kernels.op, kernels.reads, kernels.writes, strict=True)
        return np.array([sum(_sizes(_list(*each))) for each in lists], np.float64)

    def launches(self, kernels: Kernels) -> Array:
        """Of `fixed`, the time in which memory idles while a launch's last blocks run."""
        lists = zip(kernels.op, kernels.reads, kernels.writes, strict=True)
        return np.array([_tails(op, reads, writes) for op, reads, writes in lists], np.float64)

    def rates(self, kernels: Kernels) -> list[str]:
        return [_rate(op) for op in kernels.op]


def _rate(op: str) -> str:
    if "8bit" in op:
        return "optimizer_8bit"
    if "_foreach_" not in op:
        return "optimizer_fused"
    return "optimizer_norm" if op.startswith(("aten._foreach_norm", "aten._foreach_max.")) else "optimizer"


def _list(op: str, reads: tuple[Shape, ...], writes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """One of the lists of tensors of one length that the operator goes through; of one that takes single tensors, its largest."""
    if "_foreach_" in op:
        return reads[: len(writes)] if writes else reads
    if _many(op):
        # All lists that it reads it writes as well, but for the gradients.
        return reads[: max(len(reads) - len(writes), 1)]
    return tuple(sorted(reads, key=lambda shape: -math.prod(shape[1]))[:1])


def _many(op: str) -> bool:
    return "_foreach_" in op or op.startswith(("aten._fused_", "deepspeed."))


def _sizes(shapes: tuple[Shape, ...]) -> list[int]:
    return [math.prod(dims) for _, dims in shapes]


def _tails(op: str, reads: tuple[Shape, ...], writes: tuple[Shape, ...]) -> float:
    if not _many(op):
        # `fixed` of the rate for single tensors is one kernel's; that of lists, a launch's tail.
        return 1.0 if _rate(op) == "optimizer_8bit" else _LEAST
    sizes = _sizes(_list(op, reads, writes)) or [1]
    lists = max(round(len(reads) / len(sizes)), 1) + (0 if op.rpartition(".")[0].endswith("_") or "norm" in op else 1)
    whole, few = _launches(sizes, _TENSORS[min(lists, len(_TENSORS)) - 1])
    return whole + few * max(_FEW * min(max(sizes) / _CHUNK, 1.0), _LEAST)


def _launches(sizes: list[int], tensors: int) -> tuple[int, int]:
    """Launches of all their blocks, and those that so many tensors, or the end of the list, cut short."""
    whole = few = blocks = held = 0
    for size in sizes:
        blocks, held = blocks + max(math.ceil(size / _CHUNK), 1), held + 1
        while blocks >= _BLOCKS:
            # What is left of the tensor begins the next launch.
            blocks, whole = blocks - _BLOCKS, whole + 1
            held = 1 if blocks else 0
        if held == tensors:
            few, blocks, held = few + 1, 0, 0
    return whole, few + (1 if blocks else 0)
