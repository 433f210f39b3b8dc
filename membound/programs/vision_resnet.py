"""ResNet-50 v1.5 (He et al. 2016; the stride of a block in its 3 x 3 convolution): the classifier, and the trunk that detectors build upon.

Modules carry torchvision's names, so that its checkpoints fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import nn

from membound.programs.output import Output
from membound.programs.vision_layers import Normalise

Norm = Callable[[int], nn.Module]
_EXPANSION: Final = 4
_WIDTHS: Final = (64, 128, 256, 512)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut, which is projected where sizes differ."""

    def __init__(self, inputs: int, width: int, stride: int, norm: Norm) -> None:
        super().__init__()
        outputs = width * _EXPANSION
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = norm(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += shortcut
        return cast(torch.Tensor, self.relu(out))


class Trunk(nn.Module):
    """Everything before pooling. `stages` gives the output of each of the four groups of blocks, strides 4, 8, 16 and 32."""

    def __init__(self, blocks: list[int], norm: Norm = nn.BatchNorm2d, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self._names = [f"layer{i + 1}" for i in range(len(blocks))]
        inputs = width
        for i, (name, count) in enumerate(zip(self._names, blocks, strict=True)):
            wide, stride = width * _WIDTHS[i] // _WIDTHS[0], 1 if i == 0 else 2
            group = [Bottleneck(inputs if j == 0 else wide * _EXPANSION, wide, stride if j == 0 else 1, norm) for j in range(count)]
            inputs = wide * _EXPANSION
            self.add_module(name, nn.Sequential(*group))
        self.outputs = inputs

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps [B, C, H / s, W / s] of images [B, 3, H, W]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        found = []
        for name in self._names:
            x = self.get_submodule(name)(x)
            found.append(x)
        return found


class Classifier(Trunk):
    """The trunk, pooled, and one linear layer, with smoothed cross-entropy for its loss."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config["blocks"], width=config["width"])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(self.outputs, config["classes"])
        self.normalise = Normalise()
        self._smoothing = float(config["label_smoothing"])
        self.apply(_initialise)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> Output:
        """Loss of images [B, 3, H, W] of bytes and labels [B]."""
        pooled = self.avgpool(self.stages(self.normalise(images))[-1]).flatten(1)
        return Output(F.cross_entropy(self.fc(pooled), labels, label_smoothing=self._smoothing))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
