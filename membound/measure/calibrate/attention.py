"""Fused attention, forward and backward, by each of PyTorch's kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from membound.measure.calibrate.bench import Bench, Case, Thunk

# B, T, H, heads of keys and values, D.
SHAPES = (
    (4, 192, 32, 32, 128), (4, 512, 32, 32, 128), (16, 128, 32, 32, 128), (16, 64, 32, 32, 128), (1, 512, 32, 32, 128), (1, 1024, 32, 32, 128),
    (1, 2048, 32, 32, 128), (4, 2048, 32, 32, 128), (1, 4096, 64, 64, 128), (1, 2048, 64, 8, 128), (2, 1024, 32, 8, 128), (2, 4096, 32, 8, 128),
    (4, 1024, 25, 25, 64), (16, 512, 12, 12, 64), (16, 1024, 16, 16, 64), (8, 256, 8, 8, 64), (4, 2048, 32, 8, 64), (1, 8192, 32, 8, 128),
)  # fmt: skip
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
# Kernel, and how it masks.
KINDS = (
    ("flash", "causal"), ("flash", "whole"), ("efficient", "causal"), ("efficient", "bias"),
    ("cudnn", "causal"), ("cudnn", "whole"), ("cudnn", "bias"),
)  # fmt: skip


def cases(bench: Bench) -> Iterator[Case]:
    for shape in SHAPES:
        for kind, mask in KINDS:
            if kind == "efficient" and shape[2] != shape[3]:
                continue  # it takes no grouped heads: Transformers repeats them first
            for backward in (False, True):
                yield _case(bench, kind, mask, backward, *shape)


def _case(bench: Bench, kind: str, mask: str, backward: bool, batch: int, tokens: int, heads: int, groups: int, width: int) -> Case:
    batch, tokens, heads, groups, width = (bench.size(value) for value in (batch, tokens, heads, groups, width))

    def make() -> Thunk:
        q = bench.random(batch, tokens, heads, width).transpose(1, 2).requires_grad_(backward)
        k, v = (bench.random(batch, tokens, groups, width).transpose(1, 2).requires_grad_(backward) for _ in range(2))
        bias = bench.random(batch, 1, tokens, tokens).expand(batch, heads, tokens, tokens) if mask == "bias" else None
        how: dict[str, Any] = {"attn_mask": bias, "is_causal": mask == "causal", "enable_gqa": heads != groups}

        def forward() -> torch.Tensor:
            with _only(bench, kind):
                return F.scaled_dot_product_attention(q, k, v, **how)

        if not backward:
            return forward
        out = forward()
        upstream = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, (q, k, v), upstream, retain_graph=True)

    whole = 4.0 * batch * heads * tokens**2 * width * (2.5 if backward else 1)
    rows = batch * tokens * width
    nbytes = 2.0 * rows * ((4 * heads + 4 * groups) if backward else (2 * heads + 2 * groups))
    op = f"aten._scaled_dot_product_{kind}_attention{'_backward' if backward else ''}.default"
    return Case("attention", op, f"{batch},{tokens},{heads},{groups},{width}", "bfloat16", whole, nbytes, make, mask)


def _only(bench: Bench, kind: str) -> AbstractContextManager[Any]:
    return nullcontext() if bench.dry else sdpa_kernel(BACKENDS[kind])
