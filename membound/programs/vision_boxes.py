"""What both stages of a detector do with boxes (left, top, right, bottom): code them as offsets, match them to objects, and sample them.

All of it on the device, in fixed shapes, with masks instead of lists of variable length: nothing waits for the host.
"""

from __future__ import annotations

import math
from typing import Final

import torch

from membound.programs.vision_operators import overlap

# Girshick 2015: an offset of a side's logarithm is capped, lest exp overflow.
_LARGEST: Final = math.log(1000 / 16)


def encode(boxes: torch.Tensor, anchors: torch.Tensor, weights: tuple[float, float]) -> torch.Tensor:
    """Offsets [.., 4] that lead from anchors to boxes [.., 4], of centre and size, scaled by `weights`."""
    centre, size = _centre_and_size(boxes)
    start, sides = _centre_and_size(anchors)
    return torch.cat(((centre - start) / sides * weights[0], (size / sides).log() * weights[1]), dim=-1)


def decode(offsets: torch.Tensor, anchors: torch.Tensor, weights: tuple[float, float]) -> torch.Tensor:
    """The boxes that offsets [.., 4] lead to from anchors [.., 4]."""
    start, sides = _centre_and_size(anchors)
    centre = offsets[..., :2] / weights[0] * sides + start
    size = (offsets[..., 2:] / weights[1]).clamp(max=_LARGEST).exp() * sides
    return torch.cat((centre - size / 2, centre + size / 2), dim=-1)


def _centre_and_size(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)
    return boxes[..., :2] + size / 2, size


def clip(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Boxes [.., 4] cut at the image's edges."""
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), dim=-1)


def match(objects: torch.Tensor, boxes: torch.Tensor, low: float, high: float, rescue: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """For boxes [B, A, 4] the nearest of objects [B, N, 4] and a label [B, A]: 1 from an overlap of `high`, 0 below `low`, -1 between.

    `rescue`: the boxes that overlap an object most are its own, however little that is.
    """
    overlaps = overlap(objects, boxes)  # [B, N, A]
    best, nearest = overlaps.max(dim=1)
    labels = torch.where(best >= high, 1, torch.where(best < low, 0, -1))
    if rescue:
        most = overlaps.amax(dim=2, keepdim=True)
        labels = torch.where(((overlaps == most) & (most > 0)).any(dim=1), 1, labels)
    return nearest, labels


def sample(labels: torch.Tensor, count: int, positives: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers [B, count] of randomly drawn boxes by their labels [B, A], at most `positives` of label 1 and these first, and their labels.

    Where too few are labelled 0 or 1 the rest is of no use and keeps the label -1.
    """
    chance = torch.rand(labels.shape, device=labels.device)
    lucky = torch.zeros_like(labels, dtype=torch.bool).scatter(1, (chance + (labels == 1)).topk(positives, dim=1).indices, True)
    chosen = torch.where((labels == 1) & lucky, 3.0, torch.where(labels == 0, 2.0, 0.0)) + chance
    drawn = chosen.topk(count, dim=1).indices
    useful = chosen.gather(1, drawn) >= 2
    return drawn, torch.where(useful, labels.gather(1, drawn), -1)


def pick(values: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Rows `numbers` [B, K] of values [B, A, ..]: [B, K, ..]."""
    rows = torch.arange(values.shape[0], device=values.device)[:, None]
    return values[rows, numbers]
