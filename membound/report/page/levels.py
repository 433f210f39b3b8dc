"""Coarser views of a series in which no extreme is lost: the lowest, highest and mean of 2, 4, 8 ... samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Level:
    """[devices, bins] each; NaN where a bin holds no sample. Level 0 holds the samples themselves, once."""

    level: int
    low: Array
    high: Array
    mean: Array

    @property
    def bins(self) -> int:
        """Bins of each device."""
        return int(self.low.shape[1])


def reduce(values: Array, level: int) -> Level:
    """`values`, [devices, samples], in bins of 2**level samples; the last bin may hold fewer."""
    if level == 0:
        return Level(0, values, values, values)
    size = 2**level
    bins = -(-values.shape[1] // size)
    padded = np.full((values.shape[0], bins * size), np.nan)
    padded[:, : values.shape[1]] = values
    parts = padded.reshape(values.shape[0], bins, size)
    there = np.isfinite(parts)
    count = there.sum(axis=2)
    total = np.where(there, parts, 0.0).sum(axis=2)
    mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return Level(level, np.fmin.reduce(parts, axis=2), np.fmax.reduce(parts, axis=2), mean)


def level_for(samples: int, bins: int) -> int:
    """The finest level with at most `bins` bins."""
    return max(int(np.ceil(np.log2(max(samples, 1) / bins))), 0)
