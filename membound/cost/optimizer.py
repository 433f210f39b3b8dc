"""Optimizers on the GPU: all tensors of a list in a few launches, each element read and written once per operation."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from membound.cost.law import Array, Kernels
from membound.cost.streaming import Streaming

_NAMES: Final = """
    add add_ addcdiv addcdiv_ addcmul addcmul_ div div_ lerp lerp_ mul mul_ neg neg_ pow pow_ reciprocal reciprocal_ sqrt sqrt_ sub sub_ sign
    maximum maximum_ clamp_min clamp_min_ minimum abs
""".split()

_FUSED: Final = frozenset(
    {
        "aten._fused_adamw_", "aten._fused_adam_", "aten._fused_sgd_", "aten._amp_foreach_non_finite_check_and_unscale_", "aten._amp_update_scale_",
        "deepspeed.fused_adam", "deepspeed.multi_tensor_adam", "bitsandbytes.optimizer_update_8bit_blockwise", "bitsandbytes.optimizer_update_32bit",
    }
)  # fmt: skip

# Tensors that one launch of a multi-tensor kernel takes: its arguments must fit into a launch's constant memory; for lists of two to four
# (aten/src/ATen/native/cuda/MultiTensorApply.cuh, depth_to_max_tensors and depth_to_max_blocks).
_TENSORS_PER_LAUNCH: Final = 36


@final
class Optimizer(Streaming):
    """Multi-tensor and fused optimizers, gradient scaling."""

    family = "optimizer"
    operators = frozenset(f"aten._foreach_{name}" for name in _NAMES) | _FUSED

    def launches(self, kernels: Kernels) -> Array:
        tensors = np.array([max(len(reads), 1) for reads in kernels.reads], np.float64)
        return np.maximum(np.ceil(tensors / 2 / _TENSORS_PER_LAUNCH), 1.0)

    def rates(self, kernels: Kernels) -> list[str]:
        return ["optimizer" if "_foreach_" in op else "optimizer_fused" for op in kernels.op]
