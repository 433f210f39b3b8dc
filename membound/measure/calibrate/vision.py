"""Convolutions and batch norm of ResNet-50, pooling, and cuDNN's LSTM."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from membound.measure.calibrate.bench import Bench, Case, Thunk, name

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
# Channels in and out, image side, kernel, stride: ResNet-50 at 224 x 224.
LAYERS = (
    (3, 64, 224, 7, 2), (64, 64, 56, 1, 1), (64, 64, 56, 3, 1), (64, 256, 56, 1, 1), (256, 128, 56, 1, 1), (128, 128, 56, 3, 2),
    (128, 512, 28, 1, 1), (256, 256, 14, 3, 1), (256, 1024, 14, 1, 1), (512, 512, 7, 3, 1), (512, 2048, 7, 1, 1), (2048, 512, 7, 1, 1),
)  # fmt: skip


def cases(bench: Bench) -> Iterator[Case]:
    for batch in (32, 128):
        for layer in LAYERS:
            for dtype, layout in ((BF16, torch.channels_last), (FP32, torch.contiguous_format)):
                if batch == 32 or dtype == BF16:
                    for backward in (False, True):
                        yield _convolution(bench, batch, layer, dtype, layout, backward)
    for batch, channels, side in ((32, 64, 112), (32, 256, 56), (128, 256, 56), (128, 2048, 7)):
        for dtype in (BF16, FP16):
            for backward in (False, True):
                yield _batch_norm(bench, batch, channels, side, dtype, backward)
    for batch, tokens, width, layers in ((64, 128, 512, 2), (32, 256, 1024, 1), (128, 64, 1024, 2)):
        for backward in (False, True):
            yield _lstm(bench, batch, tokens, width, layers, backward)


def _convolution(bench: Bench, batch: int, layer: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, backward: bool) -> Case:
    inside, out, side, kernel, stride = layer
    batch, inside, out, side = (bench.size(value) for value in (batch, inside, out, side))

    def make() -> Thunk:
        torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
        x = bench.random(batch, inside, side, side, dtype=dtype).contiguous(memory_format=layout).requires_grad_(backward)
        w = bench.random(out, inside, kernel, kernel, dtype=dtype).contiguous(memory_format=layout).requires_grad_(backward)
        if not backward:
            return lambda: F.conv2d(x, w, stride=stride, padding=kernel // 2)
        y = F.conv2d(x, w, stride=stride, padding=kernel // 2)
        upstream = torch.randn_like(y)
        return lambda: torch.autograd.grad(y, (x, w), upstream, retain_graph=True)

    rows = batch * (-(-side // stride)) ** 2
    flops = 2.0 * rows * out * inside * kernel**2 * (2 if backward else 1)
    nbytes = float(dtype.itemsize * (batch * inside * side**2 + rows * out + inside * out * kernel**2) * (2 if backward else 1))
    op = "aten.convolution_backward.default" if backward else "aten.convolution.default"
    shape = f"{batch},{inside},{out},{side},{kernel},{stride}"
    return Case("convolution", op, shape, name(dtype), flops, nbytes, make, "channels last" if layout == torch.channels_last else "contiguous, tf32")


def _batch_norm(bench: Bench, batch: int, channels: int, side: int, dtype: torch.dtype, backward: bool) -> Case:
    batch, channels, side = (bench.size(value) for value in (batch, channels, side))

    def make() -> Thunk:
        norm = torch.nn.BatchNorm2d(channels, device=bench.device)
        x = bench.random(batch, channels, side, side, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_(backward)
        if not backward:
            return lambda: norm(x)
        y = norm(x)
        upstream = torch.randn_like(y)
        return lambda: torch.autograd.grad(y, (x, norm.weight, norm.bias), upstream, retain_graph=True)

    n = batch * channels * side**2
    op = "aten.cudnn_batch_norm_backward.default" if backward else "aten.cudnn_batch_norm.default"
    return Case("norm", op, f"{batch},{channels},{side}", name(dtype), 5.0 * n, n * (6.0 if backward else 4.0), make, "channels last")


def _lstm(bench: Bench, batch: int, tokens: int, width: int, layers: int, backward: bool) -> Case:
    batch, tokens, width = (bench.size(value) for value in (batch, tokens, width))

    def make() -> Thunk:
        module = torch.nn.LSTM(width, width, layers, batch_first=True, device=bench.device)
        x = bench.random(batch, tokens, width, dtype=FP32, grad=True)
        if not backward:
            return lambda: module(x)
        y, _ = module(x)
        upstream = torch.randn_like(y)
        return lambda: torch.autograd.grad(y, [x, *module.parameters()], upstream, retain_graph=True)

    flops = 2.0 * batch * tokens * layers * 8 * width**2 * (2 if backward else 1)
    nbytes = 4.0 * (layers * 8 * width**2 + 2 * batch * tokens * width * (layers + 1)) * (2 if backward else 1)
    op = "aten._cudnn_rnn_backward.default" if backward else "aten._cudnn_rnn.default"
    return Case("recurrent", op, f"{batch},{tokens},{width},{layers}", "float32", flops, nbytes, make)
