"""What a matmul reads from HBM more than once: operands that leave the L2 before all tiles that need them have run.

SMs walk along k side by side, each with one tile of the result: a wave of them reads every row and every column of tiles that it spans once,
for what one SM has fetched the others find in the L2. Between two waves all of it has streamed by. A product of w waves, whose shape the
library is free to choose, reads A pA times and B pB times with pA pB = w, and the least that it can come to is A pA = B pB: the bound of
Hong and Kung (STOC 1981) with a wave of tiles as the memory. An operand that stays in the L2 for good, or the band of it that is at work, is
read once; the other then once for each band.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from membound.cost.law import Array

# Results of a tile: 128 x 256, the largest of the kernels' names, which large products get (..._128x256x64 of cuBLAS and CUTLASS).
_TILE: Final = 128 * 256
# Share of the L2 that an operand may take and still be there for the next call, while weights stream past it. The L40S's tables, whose L2 is large
# and memory slow, show it; with it the A100 predicts the L40S to 24 % instead of 29 %, and the two Hoppers each other as well.
KEPT: Final = 0.25


def reread(m: Array, n: Array, k: Array, batch: Array, width: Array | float, sms: int, l2: float) -> Array:
    """Bytes that `batch` products of [m, k] by [k, n] with elements of `width` bytes read beyond their operands once. Arguments broadcast.

    Args: `sms` and `l2` (B) of the GPU.
    """
    left, right = width * m * k, width * k * n
    waves = np.maximum(m * n / (_TILE * sms), 1.0)
    # As often as the operand is read: no less than once, no more than there are waves.
    lefts = np.clip(np.sqrt(waves * right / left), 1.0, waves)
    streaming = left * lefts + right * waves / lefts
    kept = KEPT * l2
    keeping = np.minimum(left + right * np.maximum(left / kept, 1.0), right + left * np.maximum(right / kept, 1.0))
    found: Array = batch * (np.minimum(streaming, keeping) - left - right)
    return found
