"""Mask R-CNN (He et al. 2017) on a ResNet-50 pyramid. Modules carry torchvision's names, so that its checkpoints fit.

Numbers are those of the reference recipes (mlcommons/training object_detection, facebookresearch/maskrcnn-benchmark). Where those gather lists
of variable length, regions here come in fixed numbers with masks, as NVIDIA's MLPerf submissions do to spare the host's waiting.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from membound.programs import vision_boxes as boxes_
from membound.programs.output import Output
from membound.programs.vision_layers import Normalise
from membound.programs.vision_operators import roi_align
from membound.programs.vision_proposals import Proposals
from membound.programs.vision_pyramid import Pyramid

_SCALES: Final = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
_SAMPLED: Final = 512
_POSITIVE: Final = 128  # a quarter
_OVERLAP: Final = 0.5
_WEIGHTS: Final = (10.0, 5.0)
_BOX, _MASK_IN, _MASK_OUT = 7, 14, 28
# Lin et al. 2017, equation 1: a region of 224 pixels belongs to the map of stride 16.
_CANONICAL, _LEVEL = 224, 4


class MaskRcnn(nn.Module):
    """Pyramid, proposals, and heads for boxes and masks."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.backbone = Pyramid(config)
        self.rpn = Proposals(config)
        self.roi_heads = Heads(config)
        self.normalise = Normalise()

    def forward(self, images: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor) -> Output:
        """Loss of images [B, 3, H, W] of bytes, their objects' boxes [B, N, 4] and classes from 1 [B, N], and masks [B, N, H, W] of bytes."""
        maps = self.backbone(self.normalise(images))
        found, loss = self.rpn(maps, boxes, (images.shape[2], images.shape[3]))
        return Output(loss + self.roi_heads(maps[:-1], found, boxes, labels, masks))


class Heads(nn.Module):
    """From sampled regions: classes and boxes, and masks of the positive ones."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        channels, hidden, classes = config["channels"], config["hidden"], config["classes"]
        self.box_head = _named(fc6=nn.Linear(channels * _BOX**2, hidden), fc7=nn.Linear(hidden, hidden))
        self.box_predictor = _named(cls_score=nn.Linear(hidden, classes), bbox_pred=nn.Linear(hidden, classes * 4))
        block = [nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)) for _ in range(4)]
        self.mask_head = nn.Sequential(*block)
        self.mask_predictor = _named(
            conv5_mask=nn.ConvTranspose2d(channels, channels, 2, 2), relu=nn.ReLU(inplace=True), mask_fcn_logits=nn.Conv2d(channels, classes, 1)
        )

    def forward(self, maps: list[torch.Tensor], found: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """The loss of maps, proposals [B, P, 4] and objects as `MaskRcnn.forward` has them."""
        with torch.no_grad():
            candidates = torch.cat((found, boxes), dim=1)
            nearest, marks = boxes_.match(boxes, candidates, _OVERLAP, _OVERLAP, rescue=False)
            count = min(_SAMPLED, candidates.shape[1])
            drawn, marks = boxes_.sample(marks, count, min(_POSITIVE, count))
            regions, objects = boxes_.pick(candidates, drawn), nearest.gather(1, drawn)
        loss = self._boxes(maps, regions, objects, marks, boxes, labels)
        first = min(_POSITIVE, count)  # the positive ones stand first
        return loss + self._masks(maps, regions[:, :first], objects[:, :first], marks[:, :first], labels, masks)

    def _boxes(
        self, maps: list[torch.Tensor], regions: torch.Tensor, objects: torch.Tensor, marks: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        hidden = F.relu(self.box_head.fc6(_pool(maps, regions, _BOX).flatten(1)))
        hidden = F.relu(self.box_head.fc7(hidden))
        scores, offsets = self.box_predictor.cls_score(hidden), self.box_predictor.bbox_pred(hidden).float()
        positive, useful = (marks == 1).flatten(), (marks >= 0).flatten()
        classes = torch.where(positive, labels.gather(1, objects).flatten(), 0)
        total = useful.sum().clamp(min=1)
        of_classes = (F.cross_entropy(scores, classes, reduction="none") * useful).sum()
        wanted = boxes_.encode(boxes_.pick(boxes, objects), regions, _WEIGHTS).view(-1, 4)
        own = offsets.view(offsets.shape[0], -1, 4).gather(1, classes[:, None, None].expand(-1, 1, 4)).squeeze(1)
        distance = F.smooth_l1_loss(own, wanted, reduction="none").sum(dim=1)
        return (of_classes + (distance * positive).sum()) / total

    def _masks(
        self, maps: list[torch.Tensor], regions: torch.Tensor, objects: torch.Tensor, marks: torch.Tensor, labels: torch.Tensor, masks: torch.Tensor
    ) -> torch.Tensor:
        logits = self.mask_predictor(self.mask_head(_pool(maps, regions, _MASK_IN)))
        classes = labels.gather(1, objects).view(-1, 1, 1, 1).expand(-1, 1, _MASK_OUT, _MASK_OUT)
        own = logits.float().gather(1, classes).squeeze(1)
        with torch.no_grad():
            wanted = (_crop(masks, regions, objects) >= 0.5).float()
        positive = (marks == 1).flatten()
        errors = F.binary_cross_entropy_with_logits(own, wanted, reduction="none").mean(dim=(1, 2))
        return (errors * positive).sum() / positive.sum().clamp(min=1)


def _pool(maps: list[torch.Tensor], regions: torch.Tensor, size: int) -> torch.Tensor:
    """Regions [B, K, 4] from the maps of their sizes: [B * K, C, size, size]."""
    area = (regions[..., 2:] - regions[..., :2]).clamp(min=0).prod(dim=-1)
    levels = (_LEVEL + (area.sqrt() / _CANONICAL + 1e-6).log2()).floor().clamp(2, 5) - 2
    pooled: torch.Tensor = roi_align(maps, _numbered(regions), levels.flatten().long(), list(_SCALES), size)
    return pooled


def _crop(masks: torch.Tensor, regions: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
    """What of their objects' masks [B, N, H, W] regions [B, K, 4] show: [B * K, 28, 28], from 0 to 1."""
    count = masks.shape[1]
    flat = masks.flatten(0, 1)[:, None].to(regions.dtype)
    numbers = objects + torch.arange(masks.shape[0], device=masks.device)[:, None] * count
    cut = torch.cat((numbers.view(-1, 1).to(regions.dtype), regions.reshape(-1, 4)), dim=1)
    cropped: torch.Tensor = roi_align([flat], cut, torch.zeros_like(numbers).flatten(), [1.0], _MASK_OUT)
    return cropped.squeeze(1)


def _numbered(regions: torch.Tensor) -> torch.Tensor:
    """Each region [B, K, 4] with the number of its image before it: [B * K, 5]."""
    rows, count = regions.shape[:2]
    numbers = torch.arange(rows, device=regions.device, dtype=regions.dtype).view(-1, 1, 1).expand(rows, count, 1)
    return torch.cat((numbers, regions), dim=2).view(-1, 5)


def _named(**layers: nn.Module) -> Any:
    """Layers one after the other that can be asked for by name."""
    return nn.Sequential(OrderedDict(layers))
