"""Kernels that pay by the row: look-ups, sums over rows of few columns, bags, and batches of ordinary memory that no cache of the host holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from membound.measure.calibrate.bench import Bench, Case, Thunk, name

TABLE = 1_000_000
LOOKED_UP, WIDTHS = (4096, 32768, 131072, 524288), (16, 64, 128, 256, 1024)
SUMMED = ((4096, 1024), (4096, 4096), (8192, 256), (8192, 1024), (32768, 64), (32768, 256), (131072, 32), (131072, 64), (131072, 128), (131072, 256),
          (131072, 1024), (8192, 512), (65536, 512))  # fmt: skip
BAGS = ((8192, 128), (65536, 128), (65536, 32))
COPIED = (1 << 20, 4 << 20, 16 << 20, 32 << 20, 48 << 20, 64 << 20, 128 << 20)
# Different batches in turn: more than a processor's caches hold.
IN_TURN = 1 << 29


def cases(bench: Bench) -> Iterator[Case]:
    for rows, width in itertools.product(LOOKED_UP, WIDTHS):
        if rows * width <= 1 << 28:
            yield _look_up(bench, rows, width)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for rows, width in SUMMED:
            yield _columns(bench, rows, width, dtype)
    for rows, width in BAGS:
        yield _bag(bench, rows, width)
    for size in COPIED:
        yield _fresh(bench, size)


def _look_up(bench: Bench, rows: int, width: int) -> Case:
    rows, width, table = bench.size(rows), bench.size(width), bench.size(TABLE)

    def make() -> Thunk:
        weight, ids = torch.zeros(table, width, device=bench.device), bench.integers(table, rows)
        return lambda: torch.ops.aten.embedding(weight, ids)

    return Case("by-row", "aten.embedding.default", f"{rows},{width}", "float32", 0.0, 8.0 * rows * width + 8.0 * rows, make)


def _columns(bench: Bench, rows: int, width: int, dtype: torch.dtype) -> Case:
    rows, width = bench.size(rows), bench.size(width)

    def make() -> Thunk:
        x = bench.random(rows, width, dtype=dtype)
        return lambda: torch.ops.aten.sum.dim_IntList(x, [0], True)

    size = torch.finfo(dtype).bits // 8
    return Case("by-row", "aten.sum.dim_IntList", f"{rows},{width}", name(dtype), 0.0, float(size * (rows + 1) * width), make)


def _bag(bench: Bench, rows: int, width: int) -> Case:
    rows, width, table = bench.size(rows), bench.size(width), bench.size(TABLE)

    def make() -> Thunk:
        weight, ids = torch.zeros(table, width, device=bench.device), bench.integers(table, rows)
        offsets = torch.arange(rows, device=bench.device)
        return lambda: torch.ops.aten._embedding_bag(weight, ids, offsets)

    return Case("by-row", "aten._embedding_bag.default", f"{rows},{width}", "float32", 0.0, 8.0 * rows * width + 16.0 * rows, make)


def _fresh(bench: Bench, size: int) -> Case:
    size = bench.size(size)

    def make() -> Thunk:
        batches = [torch.ones(size, dtype=torch.uint8) for _ in range(max(2, IN_TURN // size) if not bench.dry else 2)]
        target, turn = torch.empty(size, dtype=torch.uint8, device=bench.device), itertools.cycle(batches)
        return lambda: target.copy_(next(turn))

    return Case("by-row", "copy_h2d", str(size), "uint8", 0.0, float(size), make, "pageable, another each time", graph=False)
