"""Made-up images of bytes, with classes, boxes or boxes and masks that can be told from them."""

from __future__ import annotations

from typing import Any

import torch

from membound.programs import vision_ssd
from membound.programs.program import Batch

Config = dict[str, Any]


def classified(config: Config, rows: int, size: int, draw: torch.Generator | None) -> Batch:
    """Square images and their classes."""
    labels = _classes(config, (rows,), draw)
    return {"images": _images(rows, size, size, _light(config, labels), draw), "labels": labels}


def boxed(config: Config, rows: int, size: int, draw: torch.Generator | None) -> Batch:
    """Square images, and for each default box what it stands for: here one in a hundred for an object that it fits exactly."""
    boxes = vision_ssd.default_boxes(size)
    labels = _classes(config, (rows,), draw).clamp(min=1)
    fits = torch.arange(boxes.shape[0]) % 100 == 0
    return {
        "images": _images(rows, size, size, _light(config, labels), draw),
        "boxes": boxes.T.expand(rows, 4, boxes.shape[0]).contiguous(),
        "labels": torch.where(fits, labels[:, None], 0),
    }


def masked(config: Config, rows: int, size: int, draw: torch.Generator | None) -> Batch:
    """Images whose longer side is padded as the recipe does, and their objects: bright rectangles, with classes, boxes and masks of bytes."""
    height, width = padded(config, size)
    count = int(config["objects"])
    labels = _classes(config, (rows, count), draw).clamp(min=1)
    boxes = _rectangles(rows, count, height, width, draw)
    masks = torch.zeros((rows, count, height, width), dtype=torch.uint8)
    images = _images(rows, height, width, torch.zeros(rows), draw)
    for row, number in ((row, number) for row in range(rows) for number in range(count) if draw is not None):
        left, top, right, bottom = boxes[row, number].long().tolist()
        masks[row, number, top:bottom, left:right] = 1
        images[row, :, top:bottom, left:right] = 50 + _light(config, labels)[row, number].to(torch.uint8)
    return {"images": images, "boxes": boxes, "labels": labels, "masks": masks}


def padded(config: Config, size: int) -> tuple[int, int]:
    """Height and width of an image with a shorter side of `size` pixels and the longest longer one, both rounded up as the pyramid wants."""
    step = int(config["divisible"])
    return (-(-size // step) * step, -(-round(size * config["longest"] / config["shortest"]) // step) * step)


def _rectangles(rows: int, count: int, height: int, width: int, draw: torch.Generator | None) -> torch.Tensor:
    """Boxes [rows, count, 4] within the image, a quarter to a half of it wide and high."""
    shape = (rows, count, 4)
    chance = torch.zeros(shape) if draw is None else torch.rand(shape, generator=draw)
    sides = (0.25 + chance[..., 2:] / 4) * torch.tensor([width, height])
    start = chance[..., :2] * (torch.tensor([width, height]) - sides)
    return torch.cat((start, start + sides), dim=2)


def _classes(config: Config, shape: tuple[int, ...], draw: torch.Generator | None) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64) if draw is None else torch.randint(int(config["classes"]), shape, generator=draw)


def _light(config: Config, labels: torch.Tensor) -> torch.Tensor:
    """A brightness of 0 to 200 that tells the class; shape of `labels`."""
    return labels * 200 // max(int(config["classes"]) - 1, 1)


def _images(rows: int, height: int, width: int, light: torch.Tensor, draw: torch.Generator | None) -> torch.Tensor:
    """Bytes [rows, 3, height, width], channels last, as bright as `light` [rows] under noise; all black where nothing is drawn."""
    images = torch.zeros((rows, 3, height, width), dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    if draw is not None:
        # One image's noise for all: a loader that draws more would keep a GPU waiting.
        images += torch.randint(50, (1, 3, height, width), generator=draw, dtype=torch.uint8)
        images += light.to(torch.uint8).view(rows, 1, 1, 1)
    return images
