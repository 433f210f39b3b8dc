"""Matmuls as fine-tuning launches them: forward, gradient of the input, gradient of the weight; batched ones as eager attention does."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from membound.measure.calibrate.bench import Bench, Case, Thunk, name

# [out, in] of weights: Llama-7B, Llama-3-8B, Llama-13B, Llama-3.2-1B, GPT-2 XL, with heads, and LoRA's factors.
WEIGHTS = (
    (4096, 4096), (11008, 4096), (4096, 11008), (32000, 4096), (1024, 4096), (14336, 4096), (4096, 14336), (128256, 4096),
    (5120, 5120), (13824, 5120), (2048, 2048), (8192, 2048), (4800, 1600), (50257, 1600), (16, 4096), (4096, 16), (64, 5120),
)  # fmt: skip
FEW = ((4096, 4096), (11008, 4096), (32000, 4096), (16, 4096), (4096, 16))
LAYOUTS = ("forward", "dgrad", "wgrad")


def cases(bench: Bench) -> Iterator[Case]:
    for rows in (512, 760, 2048, 8192):
        for weight in WEIGHTS:
            for layout in LAYOUTS:
                yield _mm(bench, rows, *weight, layout, torch.bfloat16)
    for rows in (512, 2048, 8192):
        for weight in FEW:
            for layout in LAYOUTS:
                for tf32 in (False, True):
                    yield _mm(bench, rows, *weight, layout, torch.float32, tf32)
    for rows in (1024, 4096):
        for weight in ((4800, 1600), (6400, 1600), (1600, 6400)):
            yield _addmm(bench, rows, *weight)


def batched(bench: Bench) -> Iterator[Case]:
    for dtype in (torch.bfloat16, torch.float32):
        for batch, tokens, width in (
            (128, 512, 128),
            (128, 190, 128),
            (32, 1024, 128),
            (32, 2048, 128),
            (100, 1024, 64),
            (512, 128, 64),
            (384, 64, 64),
        ):
            yield _bmm(bench, batch, tokens, tokens, width, dtype)
            yield _bmm(bench, batch, tokens, width, tokens, dtype)


def _mm(bench: Bench, rows: int, out: int, inside: int, layout: str, dtype: torch.dtype, tf32: bool = False) -> Case:
    rows, out, inside = bench.size(rows), bench.size(out), bench.size(inside)
    m, n, k = {"forward": (rows, out, inside), "dgrad": (rows, inside, out), "wgrad": (out, inside, rows)}[layout]

    def make() -> Thunk:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        x, w, g = bench.random(rows, inside, dtype=dtype), bench.random(out, inside, dtype=dtype), bench.random(rows, out, dtype=dtype)
        left, right = {"forward": (x, w.t()), "dgrad": (g, w), "wgrad": (g.t(), x)}[layout]
        return lambda: torch.mm(left, right)

    nbytes = (m * k + k * n + m * n) * dtype.itemsize
    return Case("matmul", "aten.mm.default", f"{m},{n},{k}", name(dtype), 2.0 * m * n * k, nbytes, make, layout + (" tf32" if tf32 else ""))


def _addmm(bench: Bench, rows: int, out: int, inside: int) -> Case:
    m, n, k = bench.size(rows), bench.size(out), bench.size(inside)

    def make() -> Thunk:
        bias, x, w = bench.random(n), bench.random(m, k), bench.random(n, k)
        return lambda: torch.addmm(bias, x, w.t())

    return Case("matmul", "aten.addmm.default", f"{m},{n},{k}", "bfloat16", 2.0 * m * n * k, 2.0 * (m * k + k * n + m * n + n), make, "forward")


def _bmm(bench: Bench, batch: int, m: int, n: int, k: int, dtype: torch.dtype) -> Case:
    batch, m, n, k = (bench.size(value) for value in (batch, m, n, k))

    def make() -> Thunk:
        torch.backends.cuda.matmul.allow_tf32 = False
        left, right = bench.random(batch, m, k, dtype=dtype), bench.random(batch, n, k, dtype=dtype).transpose(1, 2)
        return lambda: torch.bmm(left, right)

    nbytes = batch * (m * k + k * n + m * n) * dtype.itemsize
    return Case("bmm", "aten.bmm.default", f"{batch},{m},{n},{k}", name(dtype), 2.0 * batch * m * n * k, nbytes, make)
