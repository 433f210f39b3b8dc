"""Rows of measured products and fused attention as the laws price them that have constants of their own: all operands come from HBM."""

from __future__ import annotations

from typing import Final

import numpy as np

from membound.cost.attention_backward import AttentionBackward
from membound.cost.attention_forward import AttentionForward
from membound.cost.batched_matmul import BatchedMatmul
from membound.cost.law import Kernels, Law, Shape
from membound.cost.matmul import Matmul
from membound.spec.machine import Gpu
from membound.study.calibration.calls import Row, number, sizes

_LAWS: Final[tuple[Law, ...]] = (Matmul(), BatchedMatmul(), AttentionForward(), AttentionBackward())


def predicted(row: Row, gpu: Gpu) -> float | None:
    """Seconds of the operator of `row` on `gpu`; None where no such law knows it, or TF32 was allowed."""
    law = next((law for law in _LAWS if law.knows(row["op"])), None)
    if law is None or row["family"] not in {"matmul", "bmm", "attention"} or "tf32" in row["notes"] or number(row, "bytes") is None:
        return None
    reads, writes = _operands(row)
    flops, nbytes = np.array([float(row["flops"])]), np.array([float(row["bytes"])])
    causal = np.array([int("causal" in row["notes"])])
    kernels = Kernels((row["op"],), (tuple(reads),), (tuple(writes),), flops, nbytes, 0 * nbytes, nbytes, causal)
    return float(law.price(kernels, gpu).seconds[0])


def _operands(row: Row) -> tuple[list[Shape], list[Shape]]:
    """What the operator reads and writes."""
    dtype, dims = row["dtype"], sizes(row)
    if row["family"] == "matmul":
        m, n, k = dims
        return [(dtype, (m, k)), (dtype, (k, n))], [(dtype, (m, n))]
    if row["family"] == "bmm":
        batch, m, n, k = dims
        return [(dtype, (batch, m, k)), (dtype, (batch, k, n))], [(dtype, (batch, m, n))]
    batch, tokens, heads, groups, width = dims
    query, key = (dtype, (batch, heads, tokens, width)), (dtype, (batch, groups, tokens, width))
    mask = [(dtype, (batch, heads, tokens, tokens))] if "bias" in row["notes"] else []
    return ([query, query, key, key, *mask, query], [query, key, key]) if "backward" in row["op"] else ([query, key, key, *mask], [query])
