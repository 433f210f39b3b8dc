"""Attention with a mask at lengths that this process has not met: what the first call of each costs beyond the second, host and GPU together."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F

from membound.measure.calibrate.bench import Bench, Row
from membound.measure.calibrate.run import COLUMNS

# Odd; twice, four and eight times an odd number; whole tiles: the first of each kind, and others of it. Each once.
LENGTHS = (405, 302, 212, 136, 256, 219, 158, 140, 168, 384, 217, 206, 228, 240, 512)
ROWS, HEADS, SIZE = 4, 8, 64


def rows(bench: Bench) -> Iterator[Row]:
    for length in LENGTHS[:2] if bench.dry else LENGTHS:
        for call in ("first call", "second call", "third call"):
            for way, seconds in zip(("forward", "backward"), _both(bench, length), strict=True):
                yield _row(f"attention with a mask {way}", length, seconds, call)


def _row(op: str, length: int, seconds: float, notes: str) -> Row:
    row: Row = dict.fromkeys(COLUMNS, "")
    row.update(family="lengths", op=op, shapes=f"{ROWS}x{HEADS}x{length}x{SIZE}", dtype="bfloat16", seconds_cold=f"{seconds:.4g}", notes=notes)
    return row


def _both(bench: Bench, length: int) -> tuple[float, float]:
    """Seconds until the GPU is done with forward, and with backward."""
    q, k, v = (bench.random(ROWS, HEADS, length, SIZE, grad=True) for _ in range(3))
    # As Transformers hands it over for padded rows: true where a token may look.
    mask = torch.ones(ROWS, 1, length, length, dtype=torch.bool, device=bench.device).tril()
    upstream = bench.random(ROWS, HEADS, length, SIZE)
    bench.synchronize()
    start = time.perf_counter()
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    bench.synchronize()
    between = time.perf_counter()
    out.backward(upstream)
    bench.synchronize()
    return between - start, time.perf_counter() - between
