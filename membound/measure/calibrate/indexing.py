"""Embeddings, gathers and scatters, sorting."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from membound.measure.calibrate.bench import Bench, Case, Thunk

EMBEDDINGS = ((32000, 4096), (128256, 4096), (50257, 1600))
TOKENS = (512, 2048, 8192, 32768)


def cases(bench: Bench) -> Iterator[Case]:
    for rows, width in EMBEDDINGS:
        for tokens in TOKENS:
            yield from _embedding(bench, bench.size(rows), bench.size(width), bench.size(tokens))
    for rows, columns in ((2048, 4096), (16384, 4096)):
        yield from _scattering(bench, bench.size(rows), bench.size(columns))
    for rows, columns in ((2048, 8), (8192, 64), (32, 32000), (1, 1 << 20), (1, 1 << 24)):
        yield from _sorting(bench, bench.size(rows), bench.size(columns))


def _embedding(bench: Bench, rows: int, width: int, tokens: int) -> Iterator[Case]:
    shape = f"{rows},{width},{tokens}"

    def forward() -> Thunk:
        weight, ids = bench.random(rows, width), bench.integers(rows, tokens)
        return lambda: F.embedding(ids, weight)

    def backward() -> Thunk:
        upstream, ids = bench.random(tokens, width), bench.integers(rows, tokens)
        return lambda: torch.ops.aten.embedding_dense_backward(upstream, ids, rows, -1, False)

    yield Case("embedding", "aten.embedding.default", shape, "bfloat16", 0, 4.0 * tokens * width, forward)
    yield Case("embedding", "aten.embedding_dense_backward.default", shape, "bfloat16", 0, 2.0 * width * (rows + 2 * tokens), backward, graph=False)


def _scattering(bench: Bench, rows: int, columns: int) -> Iterator[Case]:
    shape, n = f"{rows},{columns}", rows * columns

    def index() -> Thunk:
        x, ids = bench.random(rows, columns), bench.integers(rows, rows)
        return lambda: x[ids]

    def index_put() -> Thunk:
        x, y, ids = bench.random(rows, columns), bench.random(rows, columns), torch.randperm(rows, device=bench.device)
        return lambda: x.index_put_((ids,), y, accumulate=True)

    def index_add() -> Thunk:
        x, y, ids = bench.random(rows, columns), bench.random(rows, columns), bench.integers(rows, rows)
        return lambda: x.index_add_(0, ids, y)

    def gather() -> Thunk:
        x, ids = bench.random(rows, columns), bench.integers(columns, rows, columns)
        return lambda: torch.gather(x, 1, ids)

    def scatter() -> Thunk:
        x, y, ids = bench.random(rows, columns), bench.random(rows, columns), bench.integers(columns, rows, columns)
        return lambda: x.scatter_add_(1, ids, y)

    yield Case("indexing", "aten.index.Tensor", shape, "bfloat16", 0, 4.0 * n, index, "rows")
    yield Case("indexing", "aten.index_put_.default", shape, "bfloat16", 0, 6.0 * n, index_put, "rows, accumulated", graph=False)
    yield Case("indexing", "aten.index_add_.default", shape, "bfloat16", 0, 6.0 * n, index_add, "rows")
    yield Case("indexing", "aten.gather.default", shape, "bfloat16", 0, 12.0 * n, gather, "int64 index")
    yield Case("indexing", "aten.scatter_add_.default", shape, "bfloat16", 0, 14.0 * n, scatter, "int64 index")


def _sorting(bench: Bench, rows: int, columns: int) -> Iterator[Case]:
    shape, n = f"{rows},{columns}", rows * columns

    def of(run: str) -> Thunk:
        x = bench.random(rows, columns, dtype=torch.float32)
        runs = {"sort": lambda: torch.sort(x, -1), "topk": lambda: torch.topk(x, min(2, columns), -1), "cumsum": lambda: torch.cumsum(x, -1)}
        return runs[run]

    yield Case("indexing", "aten.sort.default", shape, "float32", 0, 16.0 * n, lambda: of("sort"))
    yield Case("indexing", "aten.topk.default", shape, "float32", 0, 4.0 * n, lambda: of("topk"), "k 2")
    yield Case("indexing", "aten.cumsum.default", shape, "float32", n, 8.0 * n, lambda: of("cumsum"))
