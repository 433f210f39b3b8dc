"""The feature pyramid (Lin et al. 2017) on a ResNet-50 trunk, as detectors take it: batch norm frozen, and the trunk's beginning with it."""

from __future__ import annotations

from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import nn

from membound.programs.vision_resnet import Trunk

# FREEZE_CONV_BODY_AT 2 of the reference recipes: these never train.
_FROZEN: Final = ("conv1", "layer1")


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics and scales are constants, one multiplication and one addition."""

    weight: torch.Tensor
    bias: torch.Tensor
    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.weight.view(1, -1, 1, 1) * (self.running_var.view(1, -1, 1, 1) + 1e-5).rsqrt()
        shift = self.bias.view(1, -1, 1, 1) - self.running_mean.view(1, -1, 1, 1) * scale
        return x * scale.to(x.dtype) + shift.to(x.dtype)


class Pyramid(nn.Module):
    """Five maps of `width` channels at strides 4, 8, 16, 32 and 64."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.body = Trunk(config["blocks"], FrozenBatchNorm2d, config["width"])
        for name in _FROZEN:
            self.body.get_submodule(name).requires_grad_(False)
        width, channels = config["channels"], [self.body.outputs // 2**i for i in (3, 2, 1, 0)]
        self.fpn = nn.Module()
        self.fpn.inner_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(c, width, 1)) for c in channels)
        self.fpn.layer_blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(width, width, 3, padding=1)) for _ in channels)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        stages = self.body.stages(images)
        inner, layer = cast(nn.ModuleList, self.fpn.inner_blocks), cast(nn.ModuleList, self.fpn.layer_blocks)
        last = inner[-1](stages[-1])
        maps = [layer[-1](last)]
        for i in (2, 1, 0):
            side = inner[i](stages[i])
            last = side + F.interpolate(last, size=side.shape[-2:], mode="nearest")
            maps.insert(0, layer[i](last))
        return [*maps, F.max_pool2d(maps[-1], 1, 2)]
