"""Reductions and what is built on them: norms, softmax, losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from membound.measure.calibrate.bench import Bench, Case, Thunk, name

BF16, FP32 = torch.bfloat16, torch.float32
ROWS = ((512, 4096), (2048, 4096), (8192, 4096), (32768, 4096), (2048, 14336), (16384, 1600))
VOCABULARIES = ((512, 32000), (2048, 32000), (8192, 32000), (1024, 128256), (4096, 128256))
SCORES = ((32 * 512, 512), (128 * 512, 512), (32 * 2048, 2048))


def cases(bench: Bench) -> Iterator[Case]:
    for rows, columns in ROWS:
        yield from _norms(bench, bench.size(rows), bench.size(columns))
    for rows, columns in SCORES:
        for dtype in (BF16, FP32):
            yield from _softmax(bench, bench.size(rows), bench.size(columns), dtype)
    for rows, columns in VOCABULARIES:
        yield from _losses(bench, bench.size(rows), bench.size(columns))


def _norms(bench: Bench, rows: int, columns: int) -> Iterator[Case]:
    n, shape = rows * columns, f"{rows},{columns}"

    def on(dtype: torch.dtype, run: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], Thunk]:
        def make() -> Thunk:
            x = bench.random(rows, columns, dtype=dtype)
            return lambda: run(x)

        return make

    yield Case("reduction", "aten.sum.dim_IntList", shape, "bfloat16", n, 2.0 * n, on(BF16, lambda x: x.sum(-1)), "rows")
    yield Case("reduction", "aten.sum.dim_IntList", shape, "bfloat16", n, 2.0 * n, on(BF16, lambda x: x.sum(0)), "columns")
    yield Case("reduction", "aten.mean.dim", shape, "float32", n, 4.0 * n, on(FP32, lambda x: x.mean(-1, keepdim=True)), "rows")
    yield Case("reduction", "aten.linalg_vector_norm.default", shape, "float32", n, 4.0 * n, on(FP32, torch.linalg.vector_norm), "whole")
    yield Case("reduction", "aten.amax.default", shape, "float32", n, 4.0 * n, on(FP32, lambda x: x.amax()), "whole")
    yield Case("reduction", "pow+mean+rsqrt+mul", shape, "float32", 4 * n, 20.0 * n, on(FP32, _rms), "as RMSNorm in Transformers, five kernels")
    weight = torch.ones(columns, dtype=BF16, device=bench.device)
    yield Case("norm", "aten._fused_rms_norm", shape, "bfloat16", 4 * n, 4.0 * n, on(BF16, lambda x: F.rms_norm(x, (columns,), weight)))
    yield Case("norm", "aten.native_layer_norm.default", shape, "bfloat16", 5 * n, 4.0 * n, on(BF16, lambda x: F.layer_norm(x, (columns,), weight)))
    yield Case(
        "norm", "aten.native_layer_norm_backward.default", shape, "bfloat16", 8 * n, 6.0 * n, lambda: _layer_norm_backward(bench, rows, columns)
    )


def _rms(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


def _layer_norm_backward(bench: Bench, rows: int, columns: int) -> Thunk:
    x, weight, bias = bench.random(rows, columns, grad=True), bench.random(columns, grad=True), bench.random(columns, grad=True)
    out = F.layer_norm(x, (columns,), weight, bias)
    upstream = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, (x, weight, bias), upstream, retain_graph=True)


def _softmax(bench: Bench, rows: int, columns: int, dtype: torch.dtype) -> Iterator[Case]:
    n, shape, size = rows * columns, f"{rows},{columns}", dtype.itemsize

    def forward() -> Thunk:
        x = bench.random(rows, columns, dtype=dtype)
        return lambda: torch.softmax(x, -1)

    def backward() -> Thunk:
        y, g = torch.softmax(bench.random(rows, columns, dtype=dtype), -1), bench.random(rows, columns, dtype=dtype)
        return lambda: torch.ops.aten._softmax_backward_data(g, y, -1, dtype)

    yield Case("softmax", "aten._softmax.default", shape, name(dtype), 5 * n, 2.0 * size * n, forward)
    yield Case("softmax", "aten._softmax_backward_data.default", shape, name(dtype), 4 * n, 3.0 * size * n, backward)


def _losses(bench: Bench, rows: int, columns: int) -> Iterator[Case]:
    n, shape = rows * columns, f"{rows},{columns}"

    def logits() -> tuple[torch.Tensor, torch.Tensor]:
        return bench.random(rows, columns, dtype=FP32), bench.integers(columns, rows)

    def log_softmax() -> Thunk:
        x, _ = logits()
        return lambda: torch.log_softmax(x, -1)

    def log_softmax_backward() -> Thunk:
        x, _ = logits()
        y, g = torch.log_softmax(x, -1), torch.randn_like(x)
        return lambda: torch.ops.aten._log_softmax_backward_data(g, y, -1, FP32)

    def nll() -> Thunk:
        x, labels = logits()
        return lambda: F.nll_loss(x, labels)

    def nll_backward() -> Thunk:
        x, labels = logits()
        x.requires_grad_()
        loss = F.nll_loss(x, labels)
        return lambda: torch.autograd.grad(loss, x, retain_graph=True)

    def cross_entropy() -> Thunk:
        x, labels = logits()
        x.requires_grad_()
        return lambda: torch.autograd.grad(F.cross_entropy(x, labels), x)

    yield Case("loss", "aten._log_softmax.default", shape, "float32", 5 * n, 8.0 * n, log_softmax)
    yield Case("loss", "aten._log_softmax_backward_data.default", shape, "float32", 4 * n, 12.0 * n, log_softmax_backward)
    yield Case("loss", "aten.nll_loss_forward.default", shape, "float32", rows, 12.0 * rows, nll)
    yield Case("loss", "aten.nll_loss_backward.default", shape, "float32", rows, 4.0 * n, nll_backward, "a fill and a scatter")
    yield Case("loss", "cross_entropy forward and backward", shape, "float32", 9 * n, 24.0 * n, cross_entropy)
