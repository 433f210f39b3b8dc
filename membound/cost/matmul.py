"""Matmuls: a soft roofline of tiles and waves against HBM, times the efficiency of measured neighbours.

The neighbour's measured time over the roofline's on the neighbour itself is the efficiency; it depends on the shape alone. The roofline is then
drawn anew at the asked GPU's clocks, so that arithmetic, HBM and the fixed part each scale as they do.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Final

import numpy as np

from membound.cost import calibration
from membound.cost.dtypes import element_size
from membound.cost.law import Array, Kernels, Law, Priced, Shape, soft_roofline
from membound.cost.neighbours import Table
from membound.cost.profile import profile_of
from membound.cost.rereads import reread
from membound.cost.tiles import Rates, tiled
from membound.spec.machine import DType, Gpu

# How soft the ridge is, and the share of its peak that HBM gives: with these identical matmuls on H100 and H200, that differ in HBM alone, come
# out within 3 points of the measured speed-up in every bin of arithmetic intensity (`membound study calibration`; kernels only).
SHARPNESS: Final = 5.0
MEMORY: Final = 0.94
# s that the smallest matmul takes on each of the five measured GPUs: 1.7 to 2.5 us (cost/data/SOURCES.md).
FIXED: Final = 2e-6
# Of its peak, what cuBLAS reaches without tensor cores, and the step of its main loop in elements of k: chosen by fp32 products and batches of them,
# our own measurements on an H100 (validation/kernels/h100-sxm.csv): large ones run at 45 to 54 of 66.9 TFLOP/s, k of 16 at what HBM gives.
_PLAIN: Final = 0.76
_PLAIN_STEP: Final = 24
# Share of the L2 that an operand may take and still be there for the next call, as the tables were measured. The L40S's, whose L2 is large and
# memory slow, show it; with it the A100 predicts the L40S to 24 % instead of 29 %, and the two Hoppers each other as well.
_KEPT: Final = 0.25
# How much longer tensor cores take with training's numbers than in the tables: large products of normal numbers, forward, dgrad and wgrad, on an H100
# (the same file, warm, PyTorch 2.11) over this law with the tables alone, median. Normal numbers draw more power, and the clock falls for it.
_NORMAL: Final = 1.09
# On Hopper, with the clock up, as it is in a step whose mean power the board allows: products of so many operations, measured in bursts of 14 ms on
# an H200 over the tables alone, medians (validation/kernels/h200.csv, warm). The tables' large ones were held back by power. What a board's limit
# then takes is `membound.cost.power.held`.
_AT_FULL_CLOCK: Final = ((6e10, 1.5e11, 5e11, 2.5e12), (1.04, 1.04, 0.98, 0.94))
# FLOP per clock and SM where a matrix's rows do not begin on whole 4 bytes, such as logits over GPT-2's vocabulary of 50,257: result so, 94 TFLOP/s
# on an H100; an operand so, 132 (the same file). The clock is the boost clock.
_RAGGED_RESULT: Final = 390.0
_RAGGED_OPERAND: Final = 545.0
# Odd sizes of m or k from here on are taken for a vocabulary, which is a row's length; below, for a number of tokens, which is none.
_VOCABULARY: Final = 30_000
# Half-widths of the band: 90th percentile of points left out on the same GPU; of GPUs left out on another (`membound study calibration`); and of our
# own fp32 measurements.
_BAND_OWN: Final = 0.15
_BAND_NEIGHBOUR: Final = 0.25
_BAND_PLAIN: Final = 0.25

_DTYPES: Final[dict[str, DType]] = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "float64": "fp64", "int8": "int8"}
_NAMES: Final = frozenset("mm addmm addmm_ linear mv addmv _int_mm _addmm_activation".split())
_TENSOR: Final = frozenset({"bf16", "fp16", "int8", "fp8"})


@cache
def efficiency(gpu: str) -> Table:
    """ln(measured / roofline) of bf16 matmuls of [m, k] by [k, n] on the measured `gpu`: no holes, each point half of what its neighbours say.

    Single points scatter by 5 to 10 % between two versions of the same library; smoothing brings both nearer to our own measurements.
    """
    table = measured_efficiency(gpu).filled()
    return Table(table.axes, (table.values + table.without_each((0, 1, 2))) / 2)


def measured_efficiency(gpu: str) -> Table:
    """The same as measured, point by point, with its holes."""
    data = calibration.archive("matmul")
    m, n, k = (np.asarray(data[axis], np.float64) for axis in "mnk")
    seconds = calibration.decode(np.asarray(data[gpu], np.int16))
    drawn = measured_roofline(m[:, None, None], n[None, :, None], k[None, None, :], reference(gpu))
    with np.errstate(invalid="ignore"):
        return Table((m, n, k), np.log(seconds) - np.log(drawn.seconds))


@cache
def reference(gpu: str) -> Rates:
    """Rates of the measured `gpu`, as its data sheet has them."""
    arithmetic, hbm, sms, clock, l2 = np.asarray(calibration.archive("matmul")[f"{gpu}_rates"], np.float64)
    return Rates(float(arithmetic), float(hbm), int(sms), float(clock), float(l2))


def measured_roofline(m: Array, n: Array, k: Array, rates: Rates) -> Priced:
    """Roofline of bf16 matmuls as they were measured: weights from HBM each time, left operand and result kept in the L2. Arguments broadcast."""
    touched = 2 * (m * k + k * n + m * n)
    reaching = 2 * k * n + _reaching(2 * m * k, rates.l2) + _reaching(2 * m * n, rates.l2) + reread(m, n, k, np.ones(1), 2, rates.sms, rates.l2)
    return roofline(tiled(m, n, k, np.ones(1), rates), touched, reaching, rates, 0.0)


def _reaching(nbytes: Array, l2: float) -> Array:
    """Bytes to HBM of an operand that the call before has used as well: none up to a quarter of the L2, all from half of it."""
    return nbytes * np.clip(nbytes / l2 / _KEPT - 1, 0.0, 1.0)


def roofline(arithmetic: Array, touched: Array, hbm: Array, rates: Rates, band: float | Array) -> Priced:
    """Soft roofline of s of `arithmetic`, bytes `touched` that pass the L2, and bytes to and from `hbm`."""
    core = (arithmetic**SHARPNESS + (touched / rates.fabric) ** SHARPNESS) ** (1 / SHARPNESS)
    return soft_roofline(core, hbm / (rates.hbm * MEMORY), np.full(np.shape(core), FIXED), SHARPNESS, band)


class Matmul(Law):
    """Products of two matrices."""

    family = "matmul"

    def knows(self, op: str) -> bool:
        return op.removeprefix("aten.").removeprefix("liger_kernel.").split(".")[0] in _NAMES

    def price(self, kernels: Kernels, gpu: Gpu) -> Priced:
        return priced(*_sizes(kernels), np.ones(len(kernels)), kernels, gpu)

    def beyond(self, kernels: Kernels, gpu: Gpu) -> tuple[Array, Array]:
        return reread_by(*_sizes(kernels), np.ones(len(kernels)), kernels, gpu), np.zeros(len(kernels))


def reread_by(m: Array, n: Array, k: Array, batch: Array, kernels: Kernels, gpu: Gpu) -> Array:
    """Bytes that `batch` products of [m, k] by [k, n] read beyond their operands once, by the data type of their operands."""
    widths = np.array([element_size(dtype_of(reads)) for reads in kernels.reads], np.float64)
    return reread(m, n, k, batch, widths, gpu.sms, gpu.l2)


def _sizes(kernels: Kernels) -> tuple[Array, Array, Array]:
    """m, n and k of each product."""
    m, n = np.array([_result(writes) for writes in kernels.writes], np.float64).reshape(-1, 2).T
    return m, n, depth(m * n, kernels)


def depth(results: Array, kernels: Kernels) -> Array:
    """Size that is summed over, k, from the FLOPs of so many results; where none were counted, the last size of the first matrix."""
    k = kernels.flops / (2 * results)
    for i in np.flatnonzero(k == 0):
        k[i] = next((sizes[-1] for _, sizes in kernels.reads[i] if len(sizes) > 1), 1)
    return k


def priced(m: Array, n: Array, k: Array, batch: Array, kernels: Kernels, gpu: Gpu) -> Priced:
    """`batch` products of [m, k] by [k, n] in one launch, by the data type of their operands."""
    names = np.array([dtype_of(reads) for reads in kernels.reads], np.str_)
    seconds, compute, memory, band = (np.zeros(len(kernels)) for _ in range(4))
    hbm = kernels.hbm + reread_by(m, n, k, batch, kernels, gpu)
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        part = _of_one_type(m[rows], n[rows], k[rows], batch[rows], kernels.touched[rows], hbm[rows], str(name), gpu)
        for whole, piece in ((seconds, part.seconds), (compute, part.compute), (memory, part.memory), (band, part.band)):
            whole[rows] = piece
    return Priced(seconds, compute, memory, 1.0 - compute - memory, band)


def _of_one_type(m: Array, n: Array, k: Array, batch: Array, touched: Array, hbm: Array, name: str, gpu: Gpu) -> Priced:
    dtype = _offered(name, gpu)
    rates = Rates.of(gpu, dtype)
    if dtype not in _TENSOR:
        slower = replace(rates, arithmetic=rates.arithmetic * _PLAIN)
        plain = roofline(tiled(m, n, k, batch, slower, _PLAIN_STEP), touched, hbm, rates, _BAND_PLAIN)
        return plain.times(profile_of(gpu).factor("matmul_fp32"))
    stands = calibration.basis(gpu)
    # A batch of small products fills the GPU as one product of as many rows does.
    factor = np.exp(efficiency(stands.gpu).at(m * batch, n, k))
    # The rate of rows that begin anywhere was measured as it is, with no table beside it.
    arithmetic = np.maximum(tiled(m, n, k, batch, rates) * _normal(2 * m * n * k * batch, gpu), _ragged(m, n, k, batch, rates) / factor)
    drawn = roofline(arithmetic, touched, hbm, rates, _BAND_OWN if stands.own else _BAND_NEIGHBOUR)
    return drawn.times(factor * profile_of(gpu).factor("matmul"))


def _normal(flops: Array, gpu: Gpu) -> Array | float:
    """Time of training's numbers over that of the tables'."""
    if gpu.architecture != "hopper":
        return _NORMAL
    sizes, factors = _AT_FULL_CLOCK
    return np.interp(np.log(flops), np.log(sizes), factors)


def _ragged(m: Array, n: Array, k: Array, batch: Array, rates: Rates) -> Array:
    """Seconds of arithmetic where rows begin anywhere; 0 where they begin on whole words."""
    flops = 2 * m * n * k * batch
    operand = ((m % 2 == 1) & (m > _VOCABULARY)) | ((k % 2 == 1) & (k > _VOCABULARY))
    per_clock = np.where((n % 2 == 1) & (n > 1), _RAGGED_RESULT, np.where(operand, _RAGGED_OPERAND, np.inf))
    return flops / (per_clock * rates.sms * rates.clock)


def _offered(name: str, gpu: Gpu) -> DType:
    """The data type that a product of `name` runs in: GPUs without bf16 tensor cores run it as fp32 (PyTorch's own upcast)."""
    dtype = _DTYPES.get(name, "fp32")
    offered = {"bf16": gpu.peaks.bf16, "fp16": gpu.peaks.fp16, "int8": gpu.peaks.int8, "fp64": gpu.peaks.fp64}
    return "fp32" if dtype in offered and offered[dtype] is None else dtype


def dtype_of(reads: tuple[Shape, ...]) -> str:
    """Data type of the last matrix that is read, be there a bias before it or, after it, the ends of a grouped product's groups (int32)."""
    return next((name for name, _ in reversed(reads) if name in _DTYPES), reads[-1][0] if reads else "bfloat16")


def _result(writes: tuple[Shape, ...]) -> tuple[int, int]:
    """Rows and columns of what is written, leading dimensions taken together."""
    sizes = writes[0][1] if writes else (1,)
    columns = sizes[-1] if sizes else 1
    return math.prod(sizes[:-1]), columns
