"""Measured causal attention of serving engines: what calibrates and checks the forward law, shape by shape.

Its times hold more than the kernel: new keys and values are written to a cache, row by row, and the call has a price of its own. The kernel
alone is the law's; what is left over is explained by the two, and by measured neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from membound.cost import calibration
from membound.cost.attention import kernel_seconds
from membound.cost.law import Array
from membound.cost.matmul import reference
from membound.cost.neighbours import Table

# Share of the peak in long causal rows, and start: those of the kernels' own kind that leave the least over the table, call and cache taken as below.
# The A100's are FlashAttention-2's, as we measured it on an H100 and as its paper has it on an A100.
SPEEDS: Final = {"a100": (0.68, 0.4), "l40s": (0.56, 1.0), "h100": (0.69, 1.5), "h200": (0.69, 1.5), "b200": (0.56, 1.8)}
# Heads of 64 and 256 elements against 128: the same kernels in FlashAttention-3's figures 5 (473, 616 and 642 TFLOP/s of FlashAttention-3).
_WIDTHS: Final = {64: 0.77, 128: 1.0, 256: 1.04}


@dataclass(frozen=True)
class Overhead:
    """What a call takes beside its kernel: least squares over the table's rows, kernels subtracted (docs/laws/attention.md)."""

    call: float
    """s a call."""
    token: float
    """s a token."""
    cache: float
    """Times that the written keys and values cross HBM, reading and writing counted once each."""


_OVERHEADS: Final = {
    "a100": Overhead(4.7e-6, 0.6e-9, 1.2),
    "l40s": Overhead(1.4e-6, 0.0, 0.24),
    "h100": Overhead(10.5e-6, 0.75e-9, 1.9),
    "h200": Overhead(10.5e-6, 0.8e-9, 2.3),
    "b200": Overhead(9.6e-6, 0.5e-9, 2.5),
}


@dataclass(frozen=True)
class Measured:
    """Rows of one board: causal attention of bf16, [n] each; tokens to a row, heads of queries, groups of heads that share keys and values."""

    batch: Array
    tokens: Array
    heads: Array
    groups: Array
    width: Array
    seconds: Array


def measured(board: str, width: int | None = None) -> Measured:
    """Rows of `board`, with heads of `width` alone where one is given."""
    columns = np.asarray(calibration.archive("attention")[board], np.int16)
    columns = columns if width is None else columns[:, columns[4] == width]
    batch, tokens, heads, groups, wide = columns[:5].astype(np.float64)
    return Measured(batch, tokens, heads, groups, wide, calibration.decode(columns[5]))


def kernel(board: str, rows: Measured) -> Array:
    """The kernel alone, as the law has it, s."""
    rates = reference(board)
    long_rows, start = SPEEDS[board]
    share = long_rows * np.array([_WIDTHS[int(width)] for width in rows.width])
    moved = 4 * rows.batch * rows.tokens * (rows.heads + rows.groups) * rows.width
    return kernel_seconds(rows.batch, rows.heads, rows.tokens, rows.width, moved, share, start, rates, board == "l40s")


def call(board: str, rows: Measured) -> Array:
    """Kernel, cache and call together, s."""
    over = _OVERHEADS[board]
    written = 4 * rows.batch * rows.tokens * rows.groups * rows.width
    return kernel(board, rows) + over.call + over.token * rows.batch * rows.tokens + over.cache * 2 * written / reference(board).hbm


def residual(board: str, width: int) -> Table:
    """ln(measured / call) over batch, tokens, heads and heads to a group, for heads of `width`."""
    rows = measured(board, width)
    axes, places = zip(
        *(np.unique(each, return_inverse=True) for each in (rows.batch, rows.tokens, rows.heads, rows.heads / rows.groups)), strict=True
    )
    values = np.full([len(axis) for axis in axes], np.nan)
    values[tuple(places)] = np.log(rows.seconds) - np.log(call(board, rows))
    return Table(axes, values)
