"""Products with a 4-bit weight: the weight is widened into a tensor of its own, which an ordinary product then reads.

bitsandbytes 0.50 has a fused kernel too, and takes it for few rows only: on Hopper up to 8 to 256 by shape, on any GPU not beyond 1,536
(bitsandbytes/backends/cuda/ops.py, `_gemm_4bit_use_custom_cuda`). A micro-batch of a fine-tune has more; fewer are priced as if widened.
"""

from __future__ import annotations

from typing import final

import numpy as np

from membound.cost.l2 import effective_capacity
from membound.cost.law import Array, Kernels, Law, Priced, Shape
from membound.cost.matmul import Matmul
from membound.cost.quantisation import Quantisation
from membound.spec.machine import Gpu


@final
class QuantisedMatmul(Law):
    """bitsandbytes' product of 16-bit rows [M, K] with a packed weight [N, K]."""

    family = "quantised matmul"

    def knows(self, op: str) -> bool:
        return op.startswith("bitsandbytes.gemm_4bit")

    def price(self, kernels: Kernels, gpu: Gpu) -> Priced:
        parts = Quantisation().price(_widening(kernels, gpu), gpu), Matmul().price(_product(kernels, gpu), gpu)
        seconds = parts[0].seconds + parts[1].seconds
        shares = ((each.seconds / seconds, each) for each in parts)
        weighted = [(share * each.compute, share * each.memory, share * each.fixed, share * each.band) for share, each in shares]
        return Priced(seconds, *(first + second for first, second in zip(*weighted, strict=True)))

    def beyond(self, kernels: Kernels, gpu: Gpu) -> tuple[Array, Array]:
        again, _ = Matmul().beyond(_product(kernels, gpu), gpu)
        wide = _leaving(kernels, gpu)
        return again + wide, wide


def _sizes(kernels: Kernels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """M, K, N of each kernel, from its rows [.., K] and its result [.., N]."""
    inner = np.array([reads[0][1][-1] for reads in kernels.reads], np.float64)
    wide = np.array([writes[0][1][-1] for writes in kernels.writes], np.float64)
    rows = np.array([np.prod(writes[0][1][:-1]) for writes in kernels.writes], np.float64)
    return rows, inner, wide


def _leaving(kernels: Kernels, gpu: Gpu) -> Array:
    """Bytes of the 16-bit weight that go to HBM, and come back for the product: all of them, unless the L2 holds them."""
    _, inner, wide = _sizes(kernels)
    dense = inner * wide * 2
    found: Array = np.where(dense > effective_capacity(gpu), dense, 0.0)
    return found


def _widening(kernels: Kernels, gpu: Gpu) -> Kernels:
    """The packed weights, read, and their 16-bit form, written."""
    _, inner, wide = _sizes(kernels)
    packed, dense = inner * wide / 2, inner * wide * 2
    weights: tuple[tuple[Shape, ...], ...] = tuple((("bfloat16", (int(n), int(k))),) for n, k in zip(wide, inner, strict=True))
    names = ("bitsandbytes.dequantize_4bit.default",) * len(kernels)
    return Kernels(names, weights, weights, 0 * dense, packed, _leaving(kernels, gpu), packed + dense)


def _product(kernels: Kernels, gpu: Gpu) -> Kernels:
    """The product that follows, which reads the 16-bit weight instead of the packed one."""
    rows, inner, wide = _sizes(kernels)
    dtype = [reads[0][0] for reads in kernels.reads]
    shapes = list(zip(dtype, rows.astype(int).tolist(), inner.astype(int).tolist(), wide.astype(int).tolist(), strict=True))
    reads: tuple[tuple[Shape, ...], ...] = tuple(((t, (m, k)), (t, (k, n))) for t, m, k, n in shapes)
    writes: tuple[tuple[Shape, ...], ...] = tuple(((t, (m, n)),) for t, m, _, n in shapes)
    dense, packed = inner * wide * 2, inner * wide / 2
    read = np.maximum(kernels.hbm_read - packed, 0.0) + _leaving(kernels, gpu)
    return Kernels(("aten.mm.default",) * len(kernels), reads, writes, 2 * rows * inner * wide, read, kernels.hbm_written, kernels.touched + dense)
