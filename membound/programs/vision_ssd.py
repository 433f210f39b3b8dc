"""SSD300 (Liu et al. 2016) on a ResNet-50 trunk, as NVIDIA's recipe has it: six feature maps, 8,732 default boxes.

Shapes are those of NVIDIA/DeepLearningExamples PyTorch/Detection/SSD. Which default box stands for which object is found by the loader on
the host, as there.
"""

from __future__ import annotations

import math
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import nn

from membound.programs.output import Output
from membound.programs.vision_layers import Normalise
from membound.programs.vision_resnet import Trunk

# Of the maps after the first: inner and outer channels as shares of the first map's, which has 1,024, and whether the map halves.
_EXTRA: Final = ((256, 512, True), (256, 512, True), (128, 256, True), (128, 256, False), (128, 256, False))
_FIRST: Final = 1024
# Liu et al. 2016, section 3.1: aspect ratios beside 1, and, with Pixels of the smallest and next larger square, of 300.
_RATIOS: Final = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,))
_SIDES: Final = (21, 45, 99, 153, 207, 261, 315)
_IMAGE: Final = 300
# Variances of centre and size by which offsets are scaled; negatives kept for each positive (section 2.2).
_CENTRE, _SIZE, _NEGATIVES = 0.1, 0.2, 3


def map_sizes(image: int) -> list[int]:
    """Sides of the six feature maps of a square image: 38, 19, 10, 5, 3 and 1 for 300 pixels."""
    side = image
    for _ in range(3):  # the trunk's first convolution, its pooling, and its second group
        side = -(-side // 2)
    sides = [side]
    for _, _, halves in _EXTRA:
        side = -(-side // 2) if halves else side - 2
        sides.append(side)
    return sides


def default_boxes(image: int) -> torch.Tensor:
    """Centres and sizes [8732, 4], as shares of the image."""
    found: list[tuple[float, float, float, float]] = []
    for i, side in enumerate(map_sizes(image)):
        small, large = _SIDES[i] / _IMAGE, _SIDES[i + 1] / _IMAGE
        shapes = [(small, small), (math.sqrt(small * large),) * 2]
        for ratio in _RATIOS[i]:
            shapes += [(small * math.sqrt(ratio), small / math.sqrt(ratio)), (small / math.sqrt(ratio), small * math.sqrt(ratio))]
        found += [((x + 0.5) / side, (y + 0.5) / side, w, h) for w, h in shapes for y in range(side) for x in range(side)]
    return torch.tensor(found)


class Ssd(nn.Module):
    """The trunk's first three groups, the last without stride; five more maps; classes and offsets for every default box."""

    boxes: torch.Tensor

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.feature_extractor = Trunk(config["blocks"], width=config["width"])
        for name in ("conv2", "downsample.0"):
            cast(nn.Conv2d, self.feature_extractor.get_submodule(f"layer3.0.{name}")).stride = (1, 1)
        self._classes = int(config["classes"])
        channels = [self.feature_extractor.outputs]
        self.additional_blocks = nn.ModuleList()
        for inner, outer, halves in _EXTRA:
            narrow, wide = (channels[0] * width // _FIRST for width in (inner, outer))
            self.additional_blocks.append(_block(channels[-1], narrow, wide, halves))
            channels.append(wide)
        counts = [2 + 2 * len(ratios) for ratios in _RATIOS]
        self.loc = nn.ModuleList(nn.Conv2d(c, n * 4, 3, padding=1) for c, n in zip(channels, counts, strict=True))
        self.conf = nn.ModuleList(nn.Conv2d(c, n * self._classes, 3, padding=1) for c, n in zip(channels, counts, strict=True))
        self.normalise = Normalise()
        self.register_buffer("boxes", default_boxes(config["image_size"]).T[None], persistent=False)

    def forward(self, images: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> Output:
        """Loss of images [B, 3, H, W] of bytes, with the box [B, 4, D] and class [B, D] that each default box stands for; class 0 is nothing."""
        maps = [self.feature_extractor.stages(self.normalise(images))[-1]]
        for block in self.additional_blocks:
            maps.append(block(maps[-1]))
        rows = images.shape[0]
        offsets = torch.cat([head(x).reshape(rows, 4, -1) for head, x in zip(self.loc, maps, strict=True)], dim=2)
        scores = torch.cat([head(x).reshape(rows, self._classes, -1) for head, x in zip(self.conf, maps, strict=True)], dim=2)
        return Output(self._loss(offsets, scores, boxes, labels))

    def _loss(self, offsets: torch.Tensor, scores: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        positive = labels > 0
        count = positive.sum(dim=1)
        distance = F.smooth_l1_loss(offsets, self._offsets(boxes), reduction="none").sum(dim=1)
        of_boxes = (positive * distance).sum(dim=1)
        errors = F.cross_entropy(scores, labels, reduction="none")
        # Of the rest, three for each positive: those that are most wrong.
        order = errors.masked_fill(positive, 0).argsort(dim=1, descending=True)
        hard = order.argsort(dim=1) < (_NEGATIVES * count).clamp(max=labels.shape[1])[:, None]
        of_classes = (errors * (positive | hard)).sum(dim=1)
        return ((of_boxes + of_classes) * (count > 0) / count.clamp(min=1)).mean()

    def _offsets(self, boxes: torch.Tensor) -> torch.Tensor:
        centre = (boxes[:, :2] - self.boxes[:, :2]) / self.boxes[:, 2:] / _CENTRE
        return torch.cat((centre, (boxes[:, 2:] / self.boxes[:, 2:]).log() / _SIZE), dim=1)


def _block(inputs: int, inner: int, outputs: int, halves: bool) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, inner, 1, bias=False),
        nn.BatchNorm2d(inner),
        nn.ReLU(inplace=True),
        nn.Conv2d(inner, outputs, 3, stride=2 if halves else 1, padding=1 if halves else 0, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
