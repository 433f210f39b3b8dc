"""Optimizer steps over lists of tensors, and gradient clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from membound.measure.calibrate.bench import Bench, Case, Thunk, name

# Tensors, elements of each: LoRA's factors, a small model, a layer of a 7B, one flat partition of ZeRO.
LISTS = ((448, 65536), (200, 1 << 20), (8, 1 << 24), (1, 1 << 28))
BF16, FP32 = torch.bfloat16, torch.float32
# By their registered names: the functions of the same names are PyTorch's own.
ATEN = torch.ops.aten

Step = Callable[[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]], Any]
# What is run on parameters p, gradients g and states s, and how many times each element crosses.
FOREACH: tuple[tuple[str, int, Step], ...] = (
    ("aten._foreach_add_.Scalar", 2, lambda p, g, s: ATEN._foreach_add_.Scalar(p, 0.1)),
    ("aten._foreach_mul_.Scalar", 2, lambda p, g, s: ATEN._foreach_mul_.Scalar(p, 0.9)),
    ("aten._foreach_add_.List", 3, lambda p, g, s: ATEN._foreach_add_.List(p, g)),
    ("aten._foreach_lerp_.Scalar", 3, lambda p, g, s: ATEN._foreach_lerp_.Scalar(s, g, 0.1)),
    ("aten._foreach_addcmul_.Scalar", 3, lambda p, g, s: ATEN._foreach_addcmul_.Scalar(s, g, g, 0.1)),
    ("aten._foreach_sqrt.default", 2, lambda p, g, s: ATEN._foreach_sqrt(s)),
    ("aten._foreach_addcdiv_.Scalar", 4, lambda p, g, s: ATEN._foreach_addcdiv_.Scalar(p, g, s, 0.1)),
    ("aten._foreach_norm.Scalar", 1, lambda p, g, s: ATEN._foreach_norm.Scalar(g)),
)


def cases(bench: Bench) -> Iterator[Case]:
    for count, each in LISTS:
        count, each = bench.size(count), bench.size(each)
        for dtype in (FP32, BF16):
            for op, crossings, step in FOREACH:
                yield _foreach(bench, op, crossings, step, count, each, dtype)
            for how in ("foreach", "fused", "single"):
                if how != "single" or count <= 8:
                    yield _adamw(bench, how, count, each, dtype)
            yield _clip(bench, count, each, dtype)


def _tensors(bench: Bench, count: int, each: int, dtype: torch.dtype) -> list[torch.Tensor]:
    return [bench.random(each, dtype=dtype) for _ in range(count)]


def _foreach(bench: Bench, op: str, crossings: int, step: Step, count: int, each: int, dtype: torch.dtype) -> Case:
    def make() -> Thunk:
        p, g, s = (_tensors(bench, count, each, dtype) for _ in range(3))
        ATEN._foreach_abs_(s)
        return lambda: step(p, g, s)

    return Case("optimizer", op, f"{count}x{each}", name(dtype), count * each, float(crossings * count * each * dtype.itemsize), make)


def _adamw(bench: Bench, how: str, count: int, each: int, dtype: torch.dtype) -> Case:
    def make() -> Thunk:
        parameters = [torch.nn.Parameter(t) for t in _tensors(bench, count, each, dtype)]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer = torch.optim.AdamW(parameters, lr=1e-5, foreach=how == "foreach", fused=how == "fused")
        return optimizer.step

    n = count * each
    notes = "bytes of the fused minimum"
    return Case("optimizer", f"AdamW.step {how}", f"{count}x{each}", name(dtype), 12.0 * n, 7.0 * n * dtype.itemsize, make, notes, graph=False)


def _clip(bench: Bench, count: int, each: int, dtype: torch.dtype) -> Case:
    def make() -> Thunk:
        parameters = [torch.nn.Parameter(t) for t in _tensors(bench, count, each, dtype)]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        return lambda: torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)

    n = count * each
    return Case("optimizer", "clip_grad_norm_ foreach", f"{count}x{each}", name(dtype), 3.0 * n, 3.0 * n * dtype.itemsize, make)
