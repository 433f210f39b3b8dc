"""Convolutions as the matrix products that cuDNN makes of them, and backward as two more."""

from __future__ import annotations

from typing import Final, final

import numpy as np

from membound.cost.calibrated import Calibrated
from membound.cost.dtypes import convolution_peak
from membound.cost.law import Kernels, Priced, Shape, soft_roofline
from membound.cost.profile import Profile
from membound.spec.machine import Gpu

# As of matrix products (membound.cost.matmul).
_SHARPNESS: Final = 5.0
# Tensor cores take eight 16-bit input channels at a time (NVIDIA, "Deep Learning Performance Documentation", convolutional layers, channels in
# and out): images of three, and groups of one, leave most of them idle.
_THIN: Final = 8
# Output channels that fill a tile, and the rate of narrower ones: 380 TFLOP/s with 64 channels where 128 and more reach 530 to 640
# (validation/kernels/h100-sxm.csv, 3x3 layers of ResNet-50 at batch 128).
_TILE, _NARROW = 128, 0.67
# Rate of backward where the images are larger than their gradient: of the products that give the images' gradient, most are with the zeros
# between (same file, the layer of stride 2).
_STRIDED = 0.65


@final
class Convolution(Calibrated):
    """Convolutions of any dimension, forward and backward."""

    family = "convolution"
    efficiency_of = "compute"

    def knows(self, op: str) -> bool:
        return op.startswith(("aten.convolution", "aten.cudnn_convolution", "aten._convolution", "aten.conv_transpose"))

    def rates(self, kernels: Kernels) -> list[str]:
        return [_rate(_weight(reads, "backward" in op)) for op, reads in zip(kernels.op, kernels.reads, strict=True)]

    def priced(self, kernels: Kernels, gpu: Gpu, profile: Profile) -> Priced:
        backward = np.array(["backward" in op for op in kernels.op])
        weights = [_weight(reads, bool(back)) for reads, back in zip(kernels.reads, backward, strict=True)]
        rates = [profile.rate(name) for name in self.rates(kernels)]
        efficiency, fixed, band = (np.array([getattr(rate, field) for rate in rates], np.float64) for field in ("efficiency", "fixed", "band"))
        tile = np.array([_fill(*each) for each in zip(kernels.reads, weights, backward.tolist(), strict=True)])
        peak = np.array([convolution_peak(gpu, weight[0]) for weight in weights])
        compute = kernels.flops / (peak * efficiency * tile * gpu.clock.max / gpu.clock.boost)
        memory = kernels.hbm / (gpu.hbm.bandwidth * profile.rate("pointwise").efficiency)
        # One product forward; backward one for the images, one for the weight, and a reduction of the latter's parts.
        return soft_roofline(compute, memory, np.where(backward, 3, 1) * fixed, _SHARPNESS, band)


def _weight(reads: tuple[Shape, ...], backward: bool) -> Shape:
    """The filters [out, in / groups, ...]: after the images, and in backward after the gradient as well."""
    place = 2 if backward else 1
    return reads[place] if len(reads) > place else ("float32", ())


def _fill(reads: tuple[Shape, ...], weight: Shape, backward: bool) -> float:
    """Share of the rate that the shape allows, beside thin ones, whose rate is their own."""
    dims = weight[1]
    if len(dims) < 3 or dims[1] < _THIN:
        return 1.0
    narrow = _NARROW if dims[0] < _TILE else 1.0
    return narrow * (_STRIDED if backward and reads[0][1][-1] < reads[1][1][-1] else 1.0)


def _rate(weight: Shape) -> str:
    dtype, dims = weight
    thin = "_thin" if len(dims) > 1 and dims[1] < _THIN else ""
    return f"convolution{thin}" if dtype in {"bfloat16", "float16"} else f"convolution{thin}_tf32"
