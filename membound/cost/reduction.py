"""Reductions and normalisations: each element read at least once, few or all written."""

from __future__ import annotations

import math
from typing import Final, final

from membound.cost.law import Kernels, Shape
from membound.cost.streaming import Streaming

_NAMES: Final = """
    sum mean amax amin max min any all argmax argmin prod var var_mean std linalg_vector_norm norm cumsum cumprod logsumexp count_nonzero
    native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward _fused_rms_norm _fused_rms_norm_backward
    native_batch_norm native_batch_norm_backward cudnn_batch_norm cudnn_batch_norm_backward _native_batch_norm_legit
    _native_batch_norm_legit_functional batch_norm_backward _batch_norm_with_update mean_dim max_pool2d_with_indices
    max_pool2d_with_indices_backward avg_pool2d avg_pool2d_backward _adaptive_avg_pool2d _adaptive_avg_pool2d_backward adaptive_avg_pool2d
""".split()

# Columns, and rows, of sums over rows that are slow: [131072, 256] at a sixth of the HBM's rate, where [131072, 1024] comes to two thirds of it
# (validation/kernels/h200-by-row.csv).
_NARROW: Final = 256
_MANY: Final = 4096


@final
class Reduction(Streaming):
    """Sums, norms, means, layer, group, batch and RMS normalisation, pooling."""

    family = "reduction"
    operators = frozenset(f"aten.{name}" for name in _NAMES) | {"liger_kernel.rms_norm_forward", "liger_kernel.rms_norm_backward"}

    def rates(self, kernels: Kernels) -> list[str]:
        return [_rate(*each) for each in zip(kernels.op, kernels.reads, kernels.writes, strict=True)]


def _rate(op: str, reads: tuple[Shape, ...], writes: tuple[Shape, ...]) -> str:
    backward = "_backward" in op
    if "batch_norm" in op:
        # PyTorch's own kernels take bf16, cuDNN's fp16 and fp32, and read a row once where they can keep it.
        kind = "cudnn_batch_norm" if "cudnn" in op and reads and reads[0][0] != "bfloat16" else "batch_norm"
        return f"{kind}_backward" if backward else kind
    if "_norm" in op and "vector_norm" not in op:
        return "norm_backward" if backward else "norm"
    if "pool" in op:
        return "strided"
    if op.startswith(("aten.cumsum", "aten.cumprod")):
        return "scan"
    if not _columns(reads, writes):
        return "reduction"
    width = reads[0][1][-1]
    # Many rows of few columns: blocks stand over columns, and few of them go through long sums.
    return "reduction_narrow" if width <= _NARROW and math.prod(reads[0][1]) >= _MANY * width else "reduction_columns"


def _columns(reads: tuple[Shape, ...], writes: tuple[Shape, ...]) -> bool:
    """Whether what is left is the last dimension: the others are summed over, and neighbours in memory go to different sums."""
    if not reads or not writes or not reads[0][1] or not writes[0][1]:
        return False
    return reads[0][1][-1] == writes[0][1][-1] > 1
