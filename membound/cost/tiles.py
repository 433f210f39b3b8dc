"""What a matmul of [m, k] by [k, n] costs a GPU before any calibration: tiles, waves, split reductions, and operands on their way to the SMs.

A matmul is cut into tiles, one to an SM at a time; the last wave of tiles leaves SMs idle. Where tiles are few, k is split among more SMs,
and the parts are added afterwards. Of all the ways the fastest is taken, as the libraries' heuristics try to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from membound.cost.law import Array
from membound.spec.machine import DType, Gpu

# Tile shapes of cuBLAS kernels, as their names say (..._tilesize128x256x64, ..._128x192_...); larger ones than 256 x 128 do not fit an SM.
_TILES: Final = tuple((rows, columns) for rows in (64, 128, 192, 256) for columns in (64, 128, 192, 256) if rows * columns <= 256 * 128)
# cuBLAS splits k at most so often in the kernels that profiles of training show (splitK_reduce); an assumption.
_SPLITS: Final = (1, 2, 4, 8)
# Depth of a step of the main loop, elements: the x64 of the kernels' names.
_DEPTH: Final = 64
# What a tile's prologue and epilogue cost, in steps of the main loop. With _FABRIC and the ridge of cost/matmul.py it makes the
# speed-ups from H100 to H200 come out (docs/laws/matmul.md); fitted there, on matmuls alone.
_OVERHEAD_STEPS: Final = 2
# Bytes per clock that an SM takes from the L2: 64 B/clk/SM is the port (NVIDIA A100 whitepaper: 5120 B/clk over two partitions of 108 SMs, and more);
# 0.36 of it is what matmuls with few rows were seen to draw (fitted on H100 and H200 together, docs/laws/matmul.md): 5.6 TB/s on an H100,
# where microbenchmarks read 5.5 to 6 (chipsandcheese.com, Nvidia's H100).
_FABRIC: Final = 0.36 * 64
# A split's partial sums are written and read again in fp32, B; they pass the L2 at half its rate. An assumption: it decides few shapes.
_PARTIAL: Final = 8


@dataclass(frozen=True)
class Rates:
    """What of a GPU a matmul depends on."""

    arithmetic: float
    """Peak of the data type, FLOP/s."""
    hbm: float
    """Peak bandwidth, B/s."""
    sms: int
    clock: float
    """Core clock of that peak, Hz."""
    l2: float
    """Bytes of the last cache."""

    @classmethod
    def of(cls, gpu: Gpu, dtype: DType) -> Rates:
        """Those of `gpu`; raises `InputError` where it does not offer `dtype`."""
        return cls(gpu.peaks.of(dtype), gpu.hbm.bandwidth, gpu.sms, gpu.clock.boost, gpu.l2)

    @property
    def fabric(self) -> float:
        """Bytes per second between L2 and SMs."""
        return _FABRIC * self.sms * self.clock


def tiled(m: Array, n: Array, k: Array, batch: Array, rates: Rates, step: int = _DEPTH) -> Array:
    """Seconds of arithmetic for `batch` matmuls of [m, k] by [k, n] in one launch, k in steps of `step`. Arguments broadcast."""
    depths = [np.ceil(k / (split * step)) * step + _OVERHEAD_STEPS * step for split in _SPLITS]
    best: Array = np.full(np.broadcast_shapes(m.shape, n.shape, k.shape, batch.shape), np.inf)
    for rows, columns in _TILES:
        tiles = np.ceil(m / rows) * np.ceil(n / columns) * batch
        wave = 2 * rows * columns * rates.sms / rates.arithmetic  # s for a wave's step of one element of k
        partial = tiles * (rows * columns * _PARTIAL * 2 / rates.fabric)
        for split, depth in zip(_SPLITS, depths, strict=True):
            seconds = np.ceil(tiles * (split / rates.sms)) * wave * depth
            if split > 1:
                seconds += partial * split
            np.minimum(best, seconds, out=best)
    return best
