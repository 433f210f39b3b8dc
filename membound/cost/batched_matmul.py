"""Batched and grouped matmuls: many small products in one launch, priced as one matmul of as many tiles.

No batched product was measured for the tables; how well tiles of that shape run is taken from the single product with the rows of all of them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from membound.cost.law import Array, Kernels, Law, Priced, Shape
from membound.cost.matmul import depth, priced, reread_by
from membound.spec.machine import Gpu

_BATCHED: Final = frozenset({"bmm", "baddbmm", "baddbmm_", "_grouped_mm"})
# Sums over the batch into one matrix.
_SUMMED: Final = frozenset({"addbmm", "addbmm_"})


class BatchedMatmul(Law):
    """[b, m, k] by [b, k, n], and the groups of a mixture of experts."""

    family = "batched matmul"

    def knows(self, op: str) -> bool:
        return _base(op) in _BATCHED | _SUMMED

    def price(self, kernels: Kernels, gpu: Gpu) -> Priced:
        return priced(*_products(kernels), kernels, gpu)

    def beyond(self, kernels: Kernels, gpu: Gpu) -> tuple[Array, Array]:
        return reread_by(*_products(kernels), kernels, gpu), np.zeros(len(kernels))


def _products(kernels: Kernels) -> tuple[Array, Array, Array, Array]:
    """m, n and k of each product, and how many there are."""
    sizes = [_sizes(*each) for each in zip(kernels.op, kernels.reads, kernels.writes, strict=True)]
    batch, m, n = np.array(sizes, np.float64).reshape(-1, 3).T
    return m, n, depth(batch * m * n, kernels), batch


def _base(op: str) -> str:
    return op.removeprefix("aten.").split(".")[0]


def _sizes(op: str, reads: tuple[Shape, ...], writes: tuple[Shape, ...]) -> tuple[float, float, float]:
    """Products, and rows and columns of each. Groups are taken to be alike: how a router fills them is not in their shapes."""
    result = writes[0][1]
    if len(result) == 3:
        return result[0], result[1], result[2]
    groups = next((sizes[0] for _, sizes in reads if len(sizes) == 3), 1)
    if _base(op) in _SUMMED:
        return 1, result[0], result[1]
    return groups, result[0] / groups, result[1]
