"""Convolutions as the matrix products that cuDNN makes of them, and backward as two more."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from membound.cost import dtypes
from membound.cost.law import Kernels, Law, Priced, soft_roofline
from membound.cost.profile import profile_of
from membound.spec.machine import Gpu

# As of matrix products (membound.cost.matmul).
_SHARPNESS: Final = 5.0


@final
class Convolution(Law):
    """Convolutions of any dimension, forward and backward."""

    family = "convolution"

    def knows(self, op: str) -> bool:
        return op.startswith(("aten.convolution", "aten.cudnn_convolution", "aten._convolution", "aten.conv_transpose"))

    def price(self, kernels: Kernels, gpu: Gpu) -> Priced:
        rate = profile_of(gpu).rate(self.family)
        peak = np.array([dtypes.peak(gpu, reads[0][0]) if reads else gpu.peaks.fp32 for reads in kernels.reads])
        compute = kernels.flops / (peak * rate.efficiency * gpu.clock.max / gpu.clock.boost)
        memory = kernels.hbm / (gpu.hbm.bandwidth * profile_of(gpu).rate("pointwise").efficiency)
        backward = np.array(["backward" in op for op in kernels.op])
        fixed = np.where(backward, 3, 1) * rate.fixed
        return soft_roofline(compute, memory, fixed, _SHARPNESS, rate.band)
