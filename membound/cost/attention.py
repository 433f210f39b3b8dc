"""What forward and backward of fused attention share: shapes, causal work, and how fast each library's kernel runs on each architecture.

A kernel walks blocks of queries over blocks of keys. Causal attention leaves out the blocks above the diagonal, but not its halves; starting and
finishing a block of queries costs as much as `start` further blocks. That one form, with a few constants for each kernel, gives our own measurements
on an H100 within 2 to 7 % in the median, and the published speeds of the same kernels (docs/laws/attention.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from membound.cost import dtypes
from membound.cost.law import Array, Kernels, Priced, Shape, soft_roofline
from membound.cost.profile import profile_of
from membound.cost.tiles import Rates
from membound.spec.machine import Architecture, Gpu

# Unit of `walked` and `start`: a block of 128 by 128. Queries go in blocks of 128 forward and 64 backward, keys in blocks of 64: of the powers of two
# around FlashAttention-2's tiles those with which our measurements scatter least, short rows above all.
_UNIT: Final = 128
_QUERIES: Final = {False: 128, True: 64}
_KEYS: Final = 64
# FlashAttention-2's tiles on compute capability 8.6 and 8.9, causal rows with heads beyond 64: "64 x 64 is the fastest for causal (because it's
# square)", and what their shared memory holds of 256 (run_mha_fwd_hdim128, run_mha_fwd_hdim256, flash_fwd_launch_template.h).
_SQUARE: Final = 64
_SQUARE_ON: Final = frozenset({"8.6", "8.9"})
# How much of the longest block of queries the other SMs wait for, where rows are causal: with 0.7 kernels that were measured scatter least.
_TAIL: Final = 0.7
# Products of TF32 that stand for one of fp32: large by large, and each large by small.
_PRODUCTS: Final = 3
# Share of that peak over the share that 16-bit numbers reach of theirs, forward and backward: medians over 26 calls each on an H200, causal and with
# a mask (validation/kernels/h200-kinds.csv): the kernel is not held by its products alone.
_WIDE: Final = {False: 1.8, True: 2.0}
# How soft the ridge is: chosen with the constants below.
_SHARPNESS: Final = 4.0
# Half-width of the band: 90th percentile over all shapes and kernels of our measurements on an H100, backward of short rows left out.
_BAND: Final = 0.2


@dataclass(frozen=True)
class Speed:
    """How one kernel runs."""

    share: float
    """Of the GPU's peak, in the limit of long rows, nothing masked."""
    start: float
    """Blocks' worth that a row of blocks costs beside those it walks."""
    causal: float
    """Of that rate, where rows are causal, the blocks left out set aside."""
    memory: float
    """Share of peak HBM bandwidth, operands counted once: backward also moves its fp32 sums."""
    fixed: float
    """s, however small; backward is three kernels."""
    bias: float = 1.0
    """Of that rate, where a mask is added to the scores."""
    dropout: float = 1.0
    """Of that rate, where scores are dropped."""


@dataclass(frozen=True)
class Speeds:
    """One kernel by head dimension: 64 or less, and more."""

    narrow: Speed
    wide: Speed

    def scaled(self, narrow: float, wide: float) -> Speeds:
        """The same kernel at other shares of the peak."""
        return Speeds(replace(self.narrow, share=narrow), replace(self.wide, share=wide))


# Our own measurements, H100 SXM, PyTorch 2.11, cuDNN 9.19, normal numbers, warm (validation/kernels/h100-sxm.csv, family attention): share, start,
# causal, fixed and bias by least absolute error over 8 to 26 shapes each, memory set to what short rows show.
_HOPPER: Final = {
    ("flash", False): Speeds(Speed(0.33, 1.3, 1.0, 0.8, 1.9e-6), Speed(0.358, 0.5, 0.95, 0.8, 1.0e-6)),
    ("flash", True): Speeds(Speed(0.284, 1.8, 0.95, 0.45, 2.4e-6), Speed(0.318, 2.1, 1.0, 0.45, 3.9e-6)),
    # With a mask: medians over 18 shapes on an H200 (validation/kernels/h200.csv).
    ("cudnn", False): Speeds(Speed(0.508, 1.0, 1.0, 0.8, 3.8e-6, 0.55), Speed(0.701, 1.2, 1.0, 0.8, 3.0e-6, 0.54)),
    ("cudnn", True): Speeds(Speed(0.474, 3.3, 0.92, 0.45, 3.9e-6, 0.70), Speed(0.605, 3.9, 0.98, 0.45, 8.0e-6, 0.62)),
    # 0.95 is flash's. Dropout: medians over 6 narrow and 7 wide shapes on an H200, with and without (validation/kernels/h200-kinds.csv), with a mask
    # and none; other kernels with it were not measured.
    ("efficient", False): Speeds(Speed(0.149, 0.3, 0.95, 0.8, 1.9e-6, 0.60, 0.54), Speed(0.200, 0.1, 0.95, 0.8, 0.8e-6, 0.64, 0.66)),
    ("efficient", True): Speeds(Speed(0.112, 0.6, 0.95, 0.45, 3.4e-6, 0.90, 0.64), Speed(0.147, 1.3, 0.95, 0.45, 1.8e-6, 0.90, 0.60)),
}
# FlashAttention-2 (arXiv 2307.08691), section 4.1: up to 73 % of an A100's peak forward and 63 % backward; the attention tables' A100 agrees,
# with 0.68 for causal rows (3 % in the median over 4,340 shapes). The memory-efficient kernel, xformers there, at about half of it forward and less
# backward. The rest as on Hopper; cuDNN is taken to run as FlashAttention-2 does.
_AMPERE: Final = {
    ("flash", False): _HOPPER["flash", False].scaled(0.62, 0.71),
    ("flash", True): _HOPPER["flash", True].scaled(0.56, 0.63),
    ("cudnn", False): _HOPPER["flash", False].scaled(0.62, 0.71),
    ("cudnn", True): _HOPPER["flash", True].scaled(0.56, 0.63),
    ("efficient", False): _HOPPER["efficient", False].scaled(0.38, 0.40),
    ("efficient", True): _HOPPER["efficient", True].scaled(0.26, 0.29),
}
# As Ampere, whose code Ada runs; causal rows of the attention tables' L40S (cost/data/SOURCES.md) run at 0.56 of its peak, 0.46 with narrow heads,
# and start as on its line of `attention_table.SPEEDS`; backward as far below it as on Ampere.
_ADA: Final = {
    **_AMPERE,
    ("flash", False): Speeds(Speed(0.46, 1.3, 1.0, 0.8, 1.9e-6), Speed(0.59, 1.0, 0.95, 0.8, 1.0e-6)),
    ("flash", True): _HOPPER["flash", True].scaled(0.42, 0.52),
}
# FlashAttention-2's code on Blackwell does not use its tensor cores' own instructions: it runs as on Hopper, per SM and clock. cuDNN: the attention
# tables' own kernel runs at 0.56 of its peak in long rows (cost/data/SOURCES.md); backward as far below it as on Hopper.
_BLACKWELL: Final = {
    **{key: speeds.scaled(speeds.narrow.share * 0.5, speeds.wide.share * 0.5) for key, speeds in _HOPPER.items()},
    ("cudnn", False): _HOPPER["cudnn", False].scaled(0.42, 0.56),
    ("cudnn", True): _HOPPER["cudnn", True].scaled(0.39, 0.48),
}
_SPEEDS: Final[dict[Architecture, dict[tuple[str, bool], Speeds]]] = {
    "pascal": _AMPERE,
    "volta": _AMPERE,
    "turing": _AMPERE,
    "ampere": _AMPERE,
    "ada": _ADA,
    "hopper": _HOPPER,
    "blackwell": _BLACKWELL,
    "cdna3": _HOPPER,
}


def kind_of(op: str) -> str | None:
    """Which kernel runs a fused attention operator, forward or backward: flash, efficient or cudnn; None for any other operator."""
    name = op.split(".")[1] if "." in op else op
    if name.startswith("_scaled_dot_product_"):
        return next((kind for kind in ("flash", "efficient", "cudnn") if name.startswith(f"_scaled_dot_product_{kind}_attention")), None)
    if name.startswith(("_flash_attn_", "_flash_attention_")):
        return "flash"
    if name.startswith(("_efficient_attention_", "_cudnn_attention_")):
        return name.split("_")[1]
    return None


def is_backward(op: str) -> bool:
    """Whether the operator is a backward."""
    return "backward" in op


def price(kernels: Kernels, gpu: Gpu, backward: bool) -> Priced:
    """Times of fused attention, forward or backward."""
    first = 1 if backward else 0  # backward reads the upstream gradient first
    sizes = np.array([_sizes(op, reads[first:]) for op, reads in zip(kernels.op, kernels.reads, strict=True)], np.float64).reshape(-1, 5)
    batch, heads, queries, keys, width = sizes.T
    flag = kernels.flag if len(kernels.flag) else np.zeros(len(kernels), np.int64)
    causal, drops = flag % 2 == 1, flag >= 2
    speeds = [_speed(op, backward, wide > 64, gpu) for op, wide in zip(kernels.op, width, strict=True)]
    share, start, slow, memory, fixed, bias, drop = np.array(
        [(each.share, each.start, each.causal, each.memory, each.fixed, each.bias, each.dropout) for each in speeds], np.float64
    ).reshape(-1, 7).T  # fmt: skip
    masked = np.array([len(reads) > first + 3 and _is_mask(reads[first], reads[first + 3]) for reads in kernels.reads], bool)
    peak = np.array([_peak(op, reads[first][0], gpu, backward) for op, reads in zip(kernels.op, kernels.reads, strict=True)], np.float64)
    whole = (5 if backward else 2) * 2 * batch * heads * queries * keys * width
    # Rows that lie end to end in one tensor have their lengths in the FLOPs alone: so many rows, alike.
    rows = np.maximum(np.where(kernels.flops > 0, whole / np.maximum(kernels.flops, 1.0), 1.0), 1.0)
    whole, batch, queries, keys = whole / rows, batch * rows, queries / rows, keys / rows
    rate = peak * share * np.where(causal, slow, 1.0) * np.where(masked, bias, 1.0) * np.where(drops, drop, 1.0)
    square = causal & (width > 64) & (gpu.compute_capability in _SQUARE_ON) & (not backward)
    rows_of_blocks = np.where(square & np.array([kind_of(op) == "flash" for op in kernels.op], bool), _SQUARE, float(_QUERIES[backward]))
    compute = _blocks(whole, batch * heads, queries, keys, causal, start, gpu.sms, rows_of_blocks) / rate
    found = soft_roofline(compute, kernels.hbm / (gpu.hbm.bandwidth * memory), fixed, _SHARPNESS, _BAND)
    return found.times(profile_of(gpu).factor("attention_backward" if backward else "attention_forward"))


def kernel_seconds(
    batch: Array, heads: Array, tokens: Array, width: Array, moved: Array, share: Array, start: float, rates: Rates, square: bool
) -> Array:
    """Seconds of a causal forward of [B, H, T, D] that moves `moved` bytes, by a kernel of that speed on a GPU of those rates; `square` where
    wide heads go in tiles of 64."""
    whole = 4 * batch * heads * tokens**2 * width
    true = np.ones(len(tokens), bool)
    starts = np.full(len(tokens), start)
    compute = _blocks(whole, batch * heads, tokens, tokens, true, starts, rates.sms, np.where(square & (width > 64), _SQUARE, float(_UNIT))) / (
        rates.arithmetic * share
    )
    # 0.9: large matmuls with one row in the matmul tables read at 0.89 to 0.92 of the peak bandwidth.
    return soft_roofline(compute, moved / (rates.hbm * 0.9), np.zeros(len(tokens)), _SHARPNESS, _BAND).seconds


def _blocks(whole: Array, heads: Array, queries: Array, keys: Array, causal: Array, start: Array, sms: int, rows: Array) -> Array:
    """FLOPs as the kernel spends them: whole blocks of `rows` queries, starts, and SMs that wait for the last of them."""
    across = np.ceil(keys / _KEYS) * _KEYS / _UNIT
    down = np.ceil(queries / rows) * rows / _UNIT
    # Keys that a mean block of queries walks, the diagonal's block whole; earlier keys than the queries' own are walked by all.
    walked = np.where(causal, np.minimum((across + np.maximum(across - down, 0) + rows / _UNIT) / 2, across), across)
    block = whole / np.maximum(queries * keys / _UNIT**2, 1e-9)  # FLOPs of one pair of blocks over all heads
    total = block * down * (walked + start)
    longest = block / np.maximum(heads, 1.0) * (across + start) * (rows / _UNIT) * sms
    # A GPU whose SMs outnumber the blocks of queries takes as long as its longest one. Causal ones differ, and the longest come last.
    return np.where(causal, np.maximum(total + _TAIL * longest, longest), (total**_SHARPNESS + longest**_SHARPNESS) ** (1 / _SHARPNESS))


def _is_mask(query: Shape, operand: Shape) -> bool:
    """Whether the operand after values is a mask, [B, H, Tq, Tk], rather than an output, [B, H, Tq, D], or sums of rows."""
    return len(operand[1]) == 4 and operand[1][:3] == query[1][:3] and operand[1][3] != query[1][3]


def _sizes(op: str, reads: tuple[Shape, ...]) -> tuple[float, float, float, float, float]:
    """[B, H, T, D] as PyTorch has it; [B, T, H, D] and [tokens, H, D] as the flash_attn package does."""
    query, key = reads[0][1], reads[1][1] if len(reads) > 1 else reads[0][1]
    if len(query) == 3:
        return 1, query[1], query[0], key[0], query[2]
    if op.startswith(("flash_attn", "aten._flash_attention", "aten._efficient_attention")):
        return query[0], query[2], query[1], key[1], query[3]
    return query[0], query[1], query[2], key[2], query[3]


def _peak(op: str, dtype: str, gpu: Gpu, backward: bool) -> float:
    """Peak that a kernel's share is of, FLOP/s. From Ampere on the memory-efficient kernel multiplies fp32 as three products of TF32 on the tensor
    cores (OpMultiplyAddFastF32 in DefaultGemmType, aten/src/ATen/native/transformers/cuda/mem_eff_attention/gemm_kernel_utils.h)."""
    if dtype == "float32" and kind_of(op) == "efficient" and gpu.peaks.tf32:
        return gpu.peaks.tf32 / _PRODUCTS * _WIDE[backward]
    return dtypes.peak(gpu, dtype)


def _speed(op: str, backward: bool, wide: bool, gpu: Gpu) -> Speed:
    kind = kind_of(op) or "flash"
    speeds = _SPEEDS[gpu.architecture][kind, backward]
    return speeds.wide if wide else speeds.narrow
