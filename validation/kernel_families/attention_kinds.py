"""The memory-efficient kernel where it does more than causal rows in 16 bits: numbers of 32 bits, dropout, and a bias that is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from membound.measure.calibrate.bench import Bench, Case, Thunk, name

BF16, FP32 = torch.bfloat16, torch.float32
# B, T, H, D.
SHAPES = (
    (4, 192, 32, 128), (4, 512, 32, 128), (16, 128, 32, 128), (1, 1024, 32, 128), (1, 2048, 32, 128), (4, 2048, 32, 128), (1, 512, 64, 128),
    (4, 1024, 25, 64), (16, 512, 12, 64), (16, 512, 16, 64), (16, 114, 16, 64), (8, 256, 8, 64), (4, 2048, 32, 64),
)  # fmt: skip
# Type, mask, dropout, in the notes' words.
KINDS = (
    (FP32, "causal", 0.0), (FP32, "bias", 0.0), (BF16, "whole", 0.0), (BF16, "whole", 0.1), (BF16, "bias", 0.1), (BF16, "trained bias", 0.0),
    (BF16, "trained bias", 0.1),
)  # fmt: skip


def cases(bench: Bench) -> Iterator[Case]:
    # Dropout last: what goes wrong with its random numbers ends the process's use of the GPU.
    for dtype, mask, dropout in sorted(KINDS, key=lambda kind: kind[2]):
        for shape in SHAPES:
            for backward in (False, True):
                yield _case(bench, dtype, mask, dropout, backward, *shape)


def _case(bench: Bench, dtype: torch.dtype, mask: str, dropout: float, backward: bool, batch: int, tokens: int, heads: int, width: int) -> Case:
    batch, tokens, heads, width = (bench.size(value) for value in (batch, tokens, heads, width))

    def make() -> Thunk:
        q, k, v = (bench.random(batch, tokens, heads, width, dtype=dtype).transpose(1, 2).requires_grad_(backward) for _ in range(3))
        wanted: tuple[torch.Tensor, ...] = (q, k, v)
        bias = None
        if "bias" in mask:
            # Rows of eight, as the kernel wants them; one for all rows of the batch where it is trained, as T5's, and for all heads where not.
            rows = -(-tokens // 8) * 8
            made = bench.random(1 if "trained" in mask else batch, heads if "trained" in mask else 1, tokens, rows, dtype=dtype)
            made.requires_grad_(backward and "trained" in mask)
            bias = made[..., :tokens].expand(batch, heads, tokens, tokens)
            wanted = (*wanted, bias) if made.requires_grad else wanted
        how: dict[str, Any] = {"attn_mask": bias, "is_causal": mask == "causal", "dropout_p": dropout}

        def forward() -> torch.Tensor:
            with nullcontext() if bench.dry else sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
                return F.scaled_dot_product_attention(q, k, v, **how)

        if not backward:
            return forward
        out = forward()
        upstream = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, wanted, upstream, retain_graph=True)

    flops = 4.0 * batch * heads * tokens**2 * width * (2.5 if backward else 1)
    nbytes = float(dtype.itemsize) * batch * tokens * heads * width * (8 if backward else 4)
    op = f"aten._scaled_dot_product_efficient_attention{'_backward' if backward else ''}.default"
    notes = f"{mask}, dropout {dropout}" if dropout else mask
    return Case("attention-kinds", op, f"{batch},{tokens},{heads},{heads},{width}", name(dtype), flops, nbytes, make, notes, graph=not dropout)
