"""Memory that pooling regions takes beyond its results (`membound.programs.vision_operators.roi_align`), with torchvision's kernels.

They want 32 bits and channels first, so each level's map is copied while it is pooled, and its gradient made so before it is cast. On which level
a region lies hangs on its size: as many are taken to lie on each.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

_WORK: Final = 4  # bytes of a number that the kernels work with


def forward_scratch(args: tuple[Any, ...]) -> int:
    """Bytes beside the pooled regions: a level's map as the kernel wants it, what comes out of it, and that in the type of the whole."""
    maps, regions, size = args[0], args[1], args[4]
    pooled = regions.shape[0] * maps[0].shape[1] * size**2 / len(maps)
    narrow = maps[0].element_size() < _WORK
    made = pooled * (max(_WORK, maps[0].element_size()) + (maps[0].element_size() if narrow else 0))
    return math.ceil(max(_copied(each) for each in maps) + float(made))


def backward_scratch(args: tuple[Any, ...]) -> int:
    """Bytes beyond all the maps' gradients while those of the level that takes most are made."""
    grad, maps = args[0], args[1]
    upstream = grad.numel() / len(maps) * max(_WORK, grad.element_size())
    most, later = 0.0, float(sum(each.numel() * each.element_size() for each in maps))
    for each in maps:
        result = each.numel() * each.element_size()
        whole = each.numel() * max(_WORK, each.element_size())
        # While the kernel runs what it reads is there; then its result in the map's type, if that is another.
        most = max(most, whole + upstream - later, whole + result - later)
        later -= result
    return math.ceil(float(most))


def _copied(features: torch.Tensor) -> int:
    as_it_is = features.element_size() >= _WORK and features.is_contiguous()
    return 0 if as_it_is else int(features.numel() * max(_WORK, features.element_size()))
