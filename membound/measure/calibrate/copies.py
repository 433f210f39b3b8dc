"""Copies within the device, to and from the host, and bitsandbytes' packing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from membound.measure.calibrate.bench import Bench, Case, Thunk

SIZES = (1 << 12, 1 << 16, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30)


def cases(bench: Bench) -> Iterator[Case]:
    yield Case("overhead", "nothing", "", "", 0, 0, lambda: lambda: None, "the empty pair of events")
    for size in (*SIZES, 1 << 32):
        yield _device(bench, bench.size(size))
    for size in SIZES:
        for pinned in (True, False):
            if pinned or size < 1 << 30:
                for to_device in (True, False):
                    yield _host(bench, bench.size(size), pinned, to_device)


def _device(bench: Bench, size: int) -> Case:
    def make() -> Thunk:
        source, target = (torch.empty(size, dtype=torch.uint8, device=bench.device) for _ in range(2))
        return lambda: target.copy_(source)

    return Case("copy", "copy_d2d", str(size), "uint8", 0, 2.0 * size, make)


def _host(bench: Bench, size: int, pinned: bool, to_device: bool) -> Case:
    def make() -> Thunk:
        host = torch.zeros(size, dtype=torch.uint8, pin_memory=pinned and not bench.dry)
        device = torch.zeros(size, dtype=torch.uint8, device=bench.device)
        return (lambda: device.copy_(host, non_blocking=pinned)) if to_device else (lambda: host.copy_(device, non_blocking=pinned))

    op = "copy_h2d" if to_device else "copy_d2h"
    return Case("copy", op, str(size), "uint8", 0, float(size), make, "pinned" if pinned else "pageable", graph=pinned)


def quantised(bench: Bench) -> Iterator[Case]:
    """NF4 of weights, [out, in]; a product with one row; the 8-bit optimizer's update."""
    for out, inside in ((4096, 4096), (11008, 4096), (14336, 4096), (8192, 22016)):
        yield from _nf4(bench, max(bench.size(out), 64), max(bench.size(inside), 64))
    for count in (1 << 20, 1 << 24, 1 << 27):
        yield _adam8(bench, max(bench.size(count), 4096))


def _nf4(bench: Bench, out: int, inside: int) -> Iterator[Case]:
    n, shape = out * inside, f"{out},{inside}"

    def unpack(double: bool) -> Thunk:
        import bitsandbytes.functional as bnb

        packed, state = bnb.quantize_4bit(bench.random(out, inside), quant_type="nf4", compress_statistics=double)
        return lambda: bnb.dequantize_4bit(packed, state)

    def pack() -> Thunk:
        import bitsandbytes.functional as bnb

        weight = bench.random(out, inside)
        return lambda: bnb.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)

    def gemv() -> Thunk:
        import bitsandbytes.functional as bnb

        packed, state = bnb.quantize_4bit(bench.random(out, inside), quant_type="nf4")
        x = bench.random(1, inside)
        return lambda: bnb.gemv_4bit(x, packed.t(), state=state)

    yield Case("quantised", "bitsandbytes.dequantize_4bit", shape, "nf4", n, 2.56 * n, lambda: unpack(False))
    yield Case("quantised", "bitsandbytes.dequantize_4bit double", shape, "nf4", n, 2.52 * n, lambda: unpack(True))
    yield Case("quantised", "bitsandbytes.quantize_4bit double", shape, "nf4", n, 2.52 * n, pack)
    yield Case("quantised", "bitsandbytes.gemv_4bit", shape, "nf4", 2 * n, 0.56 * n, gemv)


def _adam8(bench: Bench, count: int) -> Case:
    def make() -> Thunk:
        from bitsandbytes.optim.adamw import AdamW8bit

        parameter = torch.nn.Parameter(bench.random(count))
        parameter.grad = torch.randn_like(parameter)
        untyped: Any = AdamW8bit
        step: Thunk = untyped([parameter], lr=1e-5).step
        return step

    return Case("quantised", "bitsandbytes.AdamW8bit.step", str(count), "bfloat16", 12.0 * count, 10.0 * count, make, graph=False)
