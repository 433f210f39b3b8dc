"""The region proposal network (Ren et al. 2015): where in an image an object may be, and its two losses."""

from __future__ import annotations

import math
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import nn

from membound.programs import vision_boxes as boxes_
from membound.programs.vision_operators import nms

# Of the reference recipes' defaults (facebookresearch/maskrcnn-benchmark maskrcnn_benchmark/config/defaults.py, MODEL.RPN).
_SIDES: Final = (32, 64, 128, 256, 512)
_RATIOS: Final = (0.5, 1.0, 2.0)
_STRIDES: Final = (4, 8, 16, 32, 64)
_BEFORE, _SUPPRESSED = 2000, 0.7
_BACKGROUND, _FOREGROUND = 0.3, 0.7
_SAMPLED, _POSITIVE = 256, 128
_WEIGHTS: Final = (1.0, 1.0)
_BETA: Final = 1 / 9


class Head(nn.Module):
    """A convolution, and for each anchor of each place a score and four offsets."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)))
        self.cls_logits = nn.Conv2d(channels, len(_RATIOS), 1)
        self.bbox_pred = nn.Conv2d(channels, len(_RATIOS) * 4, 1)

    def forward(self, maps: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Scores [B, A] and offsets [B, A, 4] of each map."""
        scores, offsets = [], []
        for x in maps:
            x = self.conv(x)
            scores.append(self.cls_logits(x).permute(0, 2, 3, 1).flatten(1).float())
            offsets.append(self.bbox_pred(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4).float())
        return scores, offsets


class Proposals(nn.Module):
    """The head, and what is made of it."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.head = Head(config["channels"])
        self._after = int(config["proposals"])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(cast(nn.Parameter, module.bias))

    def forward(self, maps: list[torch.Tensor], objects: torch.Tensor, image: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes [B, P, 4] in an image of `image` pixels (height, width), and the loss against `objects` [B, N, 4]."""
        scores, offsets = self.head(maps)
        anchors = [_anchors(x, side, stride) for x, side, stride in zip(maps, _SIDES, _STRIDES, strict=True)]
        found = self._propose([s.detach() for s in scores], [o.detach() for o in offsets], anchors, image)
        return found, _loss(torch.cat(scores, 1), torch.cat(offsets, 1), torch.cat(anchors), objects)

    def _propose(self, scores: list[torch.Tensor], offsets: list[torch.Tensor], anchors: list[torch.Tensor], image: tuple[int, int]) -> torch.Tensor:
        """Per map the best, decoded; of these, per image, the best that no better one of the same map covers."""
        tops, found, levels = [], [], []
        for number, (s, o, a) in enumerate(zip(scores, offsets, anchors, strict=True)):
            top, numbers = s.topk(min(_BEFORE, s.shape[1]), dim=1)
            tops.append(top)
            found.append(boxes_.decode(boxes_.pick(o, numbers), a[numbers], _WEIGHTS))
            levels.append(torch.full_like(numbers, number))
        top, boxes, level = torch.cat(tops, 1), boxes_.clip(torch.cat(found, 1), *image), torch.cat(levels, 1)
        apart = boxes + level[..., None] * (max(image) + 1)
        keep = torch.stack([nms(b, s, _SUPPRESSED) for b, s in zip(apart, top, strict=True)])
        count = min(self._after, top.shape[1])
        return boxes_.pick(boxes, top.masked_fill(~keep, -math.inf).topk(count, dim=1).indices)


def _anchors(x: torch.Tensor, side: int, stride: int) -> torch.Tensor:
    """Boxes [H * W * 3, 4] of one area and three shapes around each place of the map [B, C, H, W]."""
    height, width = x.shape[-2:]
    ratios = torch.tensor(_RATIOS, device=x.device)
    half = torch.stack((side / ratios.sqrt(), side * ratios.sqrt()), dim=1) / 2
    shapes = torch.cat((-half, half), dim=1).round()
    y, across = torch.meshgrid(torch.arange(height, device=x.device) * stride, torch.arange(width, device=x.device) * stride, indexing="ij")
    places = torch.stack((across, y, across, y), dim=-1).reshape(-1, 1, 4)
    return (places + shapes).reshape(-1, 4)


def _loss(scores: torch.Tensor, offsets: torch.Tensor, anchors: torch.Tensor, objects: torch.Tensor) -> torch.Tensor:
    """Of sampled anchors: whether they are objects', and how far the positive ones are from theirs."""
    every = anchors.expand(objects.shape[0], -1, -1)
    nearest, labels = boxes_.match(objects, every, _BACKGROUND, _FOREGROUND, rescue=True)
    count = min(_SAMPLED, labels.shape[1])
    drawn, drawn_labels = boxes_.sample(labels, count, min(_POSITIVE, count))
    useful, positive = (drawn_labels >= 0).float(), drawn_labels == 1
    total = useful.sum().clamp(min=1)
    of_scores = F.binary_cross_entropy_with_logits(scores.gather(1, drawn), positive.float(), weight=useful, reduction="sum")
    wanted = boxes_.encode(boxes_.pick(objects, nearest.gather(1, drawn)), anchors[drawn], _WEIGHTS)
    distance = F.smooth_l1_loss(boxes_.pick(offsets, drawn), wanted, reduction="none", beta=_BETA)
    return (of_scores + (distance * positive[..., None]).sum()) / total
