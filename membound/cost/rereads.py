"""What a matmul reads from HBM more than once: operands that leave the L2 before all tiles that need them have run.

SMs walk along k side by side, each with one tile of the result: a wave of them reads every row and every column of tiles that it spans once,
for what one SM has fetched the others find in the L2. Between two waves all of it has streamed by. A product of w waves, whose shape the
library is free to choose, reads A pA times and B pB times with pA pB = w, and the least that it can come to is A pA = B pB: the bound of
Hong and Kung (STOC 1981) with a wave of tiles as the memory. Of two waves or less cuBLAS takes whole rows of tiles, and reads B for each. Where
all that a wave moves fits into the L2, the next wave finds it there.

Constants are from bytes that were counted kernel by kernel on an H200, by Nsight Compute (validation/h200/bytes; `validation/compare_bytes.py`): 409
products of 2e10 to 1e11 FLOP and more in seven steps of five models; those of an eighth, Falcon's, were not looked at for it. cuBLAS's tables of
times hardly tell one version of this law from another.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from membound.cost.law import Array

# Results of a tile: 128 x 256, the largest of the kernels' names, which large products get (..._128x256x64 of cuBLAS and CUTLASS).
_TILE: Final = 128 * 256
_BY_ROWS: Final = 2.0
# Share of the L2 that a wave may move and all of it still be there for the next one; of twice as much nothing is. It is well below the half that two
# partitions leave: what was there before, and tiles of the result, take their part. Of 0.3, 0.4, 0.5, 0.75 and 1 the one that errs least.
_STAYS: Final = 0.3
# What is read again, over that bound: SMs drift apart along k, and some come when a row or column has left. Median; for k above 100,000 twice that.
_DRIFT: Final = 1.2


def reread(m: Array, n: Array, k: Array, batch: Array, width: Array | float, sms: int, l2: float) -> Array:
    """Bytes that `batch` products of [m, k] by [k, n] with elements of `width` bytes read beyond their operands once. Arguments broadcast.

    Args: `sms` and `l2` (B) of the GPU.
    """
    left, right, result = width * m * k, width * k * n, width * m * n
    waves = np.maximum(m * n / (_TILE * sms), 1.0)
    # As often as the operand is read: no less than once, no more than there are waves.
    lefts = np.where(waves <= _BY_ROWS, 1.0, np.clip(np.sqrt(waves * right / left), 1.0, waves))
    again = left * (lefts - 1) + right * (waves / lefts - 1)
    moved = result / waves + np.minimum(left / waves + right, left + right / waves)
    leaves = np.clip(moved / (_STAYS * l2) - 1, 0.0, 1.0)
    found: Array = batch * _DRIFT * leaves * again
    return found
