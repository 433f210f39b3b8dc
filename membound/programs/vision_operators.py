"""Detection's two operators, as `membound::nms` and `membound::roi_align`: torchvision's kernels where it is installed, PyTorch's own otherwise.

Results have fixed shapes, so that no kernel has to wait for a number that the host reads, and so that a device that computes nothing can
run them: suppression gives a mask over all boxes, and pooling takes all pyramid levels at once.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, Final

import torch
from torch.utils.flop_counter import register_flop_formula

_RATIO: Final = 2
"""Samples of a bin along each side (POOLER_SAMPLING_RATIO of the reference recipes)."""


@functools.cache
def _torchvision() -> Any:
    try:
        return importlib.import_module("torchvision.ops")
    except (ImportError, RuntimeError):  # not there, or made for another build of PyTorch
        return None


@torch.library.custom_op("membound::nms", mutates_args=())
def nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Of boxes [N, 4] (left, top, right, bottom) those that no kept box of a higher score overlaps by more than `threshold`: bool [N]."""
    keep = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    library = _torchvision()
    if library is not None:
        keep[library.nms(boxes, scores, threshold)] = True
        return keep
    order = scores.argsort(descending=True, stable=True)
    overlaps = (overlap(boxes[order], boxes[order]) > threshold).triu(diagonal=1)
    kept = torch.ones_like(keep)
    # Of the boxes in order, the first n are right after n rounds; far fewer do.
    while not torch.equal(kept, after := ~(overlaps & kept[:, None]).any(dim=0)):
        kept = after
    keep[order] = kept
    return keep


@nms.register_fake
def _(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    return torch.empty(scores.shape, dtype=torch.bool, device=scores.device)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """As torchvision's kernels take it: 32 bits, as its autocast makes of less, and channels first."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32), memory_format=torch.contiguous_format)


def overlap(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes [.., M, 4] and [.., N, 4]: [.., M, N]."""
    left_top = torch.maximum(one[..., :, None, :2], other[..., None, :, :2])
    right_bottom = torch.minimum(one[..., :, None, 2:], other[..., None, :, 2:])
    shared = (right_bottom - left_top).clamp(min=0).prod(dim=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) for boxes in (one, other)]
    return shared / (areas[0][..., :, None] + areas[1][..., None, :] - shared).clamp(min=1e-9)


@torch.library.custom_op("membound::roi_align", mutates_args=())
def roi_align(maps: list[torch.Tensor], regions: torch.Tensor, levels: torch.Tensor, scales: list[float], size: int) -> torch.Tensor:
    """Regions [R, 5] (number of the image, then a box in its pixels), each pooled from the map of its level [R] to [R, C, size, size].

    `maps` are [B, C, H, W] at `scales` of the image; each bin is the mean of two by two bilinear samples (He et al. 2017).
    """
    library = _torchvision()
    out = maps[0].new_zeros((regions.shape[0], maps[0].shape[1], size, size))
    for level, (features, scale) in enumerate(zip(maps, scales, strict=True)):
        rows = (levels == level).nonzero().squeeze(1)
        if library is not None:
            whole = _plain(features)
            out[rows] = library.roi_align(whole, regions[rows].to(whole.dtype), size, scale, _RATIO).to(out.dtype)
            continue
        where, weights = _corners(features, regions[rows], scale, size)
        pixels = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
        pooled = (pixels[where] * weights[..., None].to(pixels.dtype)).sum(dim=-2)
        out[rows] = pooled.view(-1, size, size, features.shape[1]).permute(0, 3, 1, 2)
    return out


@roi_align.register_fake
def _(maps: list[torch.Tensor], regions: torch.Tensor, levels: torch.Tensor, scales: list[float], size: int) -> torch.Tensor:
    return maps[0].new_empty((regions.shape[0], maps[0].shape[1], size, size))


@torch.library.custom_op("membound::roi_align_backward", mutates_args=())
def roi_align_backward(
    grad: torch.Tensor, maps: list[torch.Tensor], regions: torch.Tensor, levels: torch.Tensor, scales: list[float], size: int
) -> list[torch.Tensor]:
    """Gradients of the maps, each as its map; of the maps only sizes are looked at."""
    library, found = _torchvision(), []
    for level, (features, scale) in enumerate(zip(maps, scales, strict=True)):
        rows, channels, height, width = features.shape
        chosen = (levels == level).nonzero().squeeze(1)
        if library is not None:
            upstream = _plain(grad[chosen])
            boxes = regions[chosen].to(upstream.dtype)
            total = torch.ops.torchvision._roi_align_backward(upstream, boxes, scale, size, size, rows, channels, height, width, _RATIO, False)
            del upstream
            found.append(total.to(features.dtype, memory_format=torch.channels_last))
            continue
        where, weights = _corners(features, regions[chosen], scale, size)
        spread = grad[chosen].permute(0, 2, 3, 1).reshape(-1, 1, channels) * weights[..., None].to(grad.dtype)
        total = grad.new_zeros((rows * height * width, channels)).index_add_(0, where.flatten(), spread.reshape(-1, channels))
        found.append(total.view(rows, height, width, channels).permute(0, 3, 1, 2))
    return found


@roi_align_backward.register_fake
def _(grad: torch.Tensor, maps: list[torch.Tensor], *rest: Any) -> list[torch.Tensor]:
    return [torch.empty_like(features, memory_format=torch.channels_last) for features in maps]


def _corners(features: torch.Tensor, regions: torch.Tensor, scale: float, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each bin of each region [R * size * size, 16]: numbers of the pixels around its four samples, and their weights."""
    height, width = features.shape[-2:]
    images, left, top, right, bottom = regions.float().unbind(dim=1)
    steps = (torch.arange(size * _RATIO, device=regions.device) + 0.5) / (size * _RATIO)
    x = left[:, None] * scale + ((right - left) * scale).clamp(min=1)[:, None] * steps
    y = top[:, None] * scale + ((bottom - top) * scale).clamp(min=1)[:, None] * steps
    xs, x_weights = _neighbours(x, width)
    ys, y_weights = _neighbours(y, height)
    first = (images.long() * height * width).view(-1, 1, 1, 1, 1)
    where = first + ys[:, :, None, :, None] * width + xs[:, None, :, None, :]  # [R, samples, samples, 2, 2]
    weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :] / _RATIO**2
    bins = (-1, size, _RATIO, size, _RATIO, 2, 2)
    order = (0, 1, 3, 2, 4, 5, 6)
    return tuple(t.reshape(bins).permute(order).reshape(-1, 4 * _RATIO**2) for t in (where, weights))  # type: ignore[return-value]


def _neighbours(at: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The two pixels on either side of positions [R, S] and their weights, [R, S, 2]; beyond the edge by more than one, nothing."""
    inside = (at >= -1) & (at <= count)
    at = at.clamp(0, count - 1)
    low = at.floor().clamp(max=count - 1)
    share = at - low
    pixels = torch.stack((low, (low + 1).clamp(max=count - 1)), dim=2).long()
    return pixels, torch.stack((1 - share, share), dim=2) * inside[..., None]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    maps, regions, levels, ctx.scales, ctx.size = inputs
    ctx.save_for_backward(regions, levels, *maps)


def _backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    regions, levels, *maps = ctx.saved_tensors
    return roi_align_backward(grad, list(maps), regions, levels, ctx.scales, ctx.size), None, None, None, None


roi_align.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.membound.roi_align)
def _roi_align_flops(maps: Any, regions: Any, levels: Any, scales: Any, size: int, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Four samples of four pixels for each number that comes out, a multiplication and an addition each."""
    return int(regions[0] * maps[0][1] * size**2 * 4 * _RATIO**2 * 2)


@register_flop_formula(torch.ops.membound.roi_align_backward)
def _roi_align_backward_flops(grad: Any, *args: Any, **kwargs: Any) -> int:
    rows, channels, height, width = grad
    return int(rows * channels * height * width * 4 * _RATIO**2 * 2)
