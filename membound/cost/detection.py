"""Detection's own operators: boxes that are thinned out, and regions that are resampled from feature maps, forward and backward.

Rates are of torchvision's kernels in a step of Mask R-CNN on one H200 (PyTorch 2.11, torchvision 0.26;
validation/h200/profiles/mask-rcnn-4.profile.parquet, and an earlier one of the same job).
"""

from __future__ import annotations

import math
from typing import Final, final

import numpy as np

from membound.cost.law import Array, Kernels, Law, Priced, Shape, soft_roofline
from membound.cost.profile import profile_of
from membound.spec.machine import Gpu

# The core clock and processors of the card that was measured, Hz.
_CLOCK: Final = 1980e6
_SMS: Final = 132
# s for each box of those that are gone through one after the other by a single block, which is most of it: 9.69 and 12.02 ms for four
# times 8,819 boxes, the mean.
_BOX: Final = 0.308e-6
# Pairs of boxes compared in a second: 0.42 ms for four times 8,819 squared.
_PAIRS: Final = 7.4e11
# Results resampled in a second, of four samples each: 51.8 million in 1.18 ms; gradients scattered back, 51.4 million in 3.08 ms.
_RESAMPLED: Final = 44e9
_SCATTERED: Final = 16.7e9
# s to start and end the kernels of one call, which takes each level of the pyramid by itself.
_FIXED: Final = 20e-6
_SHARPNESS: Final = 4.0
# One model on one card.
_BAND: Final = 0.3


@final
class Detection(Law):
    """Non-maximum suppression and region alignment."""

    family = "detection"

    def knows(self, op: str) -> bool:
        return op.startswith(("membound.nms", "membound.roi_align", "torchvision.nms", "torchvision.roi_align", "torchvision._roi_align_backward"))

    def price(self, kernels: Kernels, gpu: Gpu) -> Priced:
        clock = gpu.clock.max / _CLOCK
        alone = np.array([_alone(*each) for each in zip(kernels.op, kernels.reads, strict=True)], np.float64) / clock
        spread = np.array([_spread(*each) for each in zip(kernels.op, kernels.reads, kernels.writes, strict=True)], np.float64)
        memory = kernels.hbm / (gpu.hbm.bandwidth * profile_of(gpu).rate("pointwise").efficiency)
        arithmetic: Array = alone + spread / (clock * gpu.sms / _SMS)
        return soft_roofline(arithmetic, memory, np.full(len(kernels), _FIXED), _SHARPNESS, _BAND)


def _alone(op: str, reads: tuple[Shape, ...]) -> float:
    """s of one block while all others wait."""
    return _BOX * reads[0][1][0] if "nms" in op and reads and reads[0][1] else 0.0


def _spread(op: str, reads: tuple[Shape, ...], writes: tuple[Shape, ...]) -> float:
    """s of work that all processors share."""
    if "nms" in op:
        return float(reads[0][1][0]) ** 2 / _PAIRS if reads and reads[0][1] else 0.0
    if "backward" in op:
        return math.prod(reads[0][1]) / _SCATTERED if reads else 0.0
    return math.prod(writes[0][1]) / _RESAMPLED if writes else 0.0
