"""Row lengths: which micro-batches a run meets, at which lengths to price them, and what a mean over all of them weighs.

Each micro-batch is padded to its own longest row, so a rank's micro-step is as long as the longest of its rows; ranks that wait for each other
are as slow as the longest row among all of theirs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.spec.job import Job

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Row lengths are priced at multiples of this, tokens: what tensor cores like, and fine enough to interpolate.
_STEP: Final = 8


@dataclass(frozen=True)
class Lengths:
    """Row lengths of a Job's data, truncated at its cap; tokens."""

    rows: Ints
    """A sample of rows, or the one length that all have."""
    micro_batch: int
    cap: int

    @property
    def fixed(self) -> bool:
        """Whether all rows are equally long."""
        return bool((self.rows == self.rows[0]).all())

    @property
    def mean(self) -> float:
        """Tokens of a row, padding left out."""
        return float(self.rows.mean())

    @functools.cached_property
    def _counted(self) -> tuple[Ints, Ints]:
        values, counts = np.unique(self.rows, return_counts=True)
        return values, counts

    @functools.cached_property
    def _weights(self) -> dict[tuple[tuple[int, ...], int], Floats]:
        return {}

    def longest_of(self, rows: int) -> tuple[Ints, Floats]:
        """Lengths that the longest of so many rows may have, and how likely each is."""
        values, counts = self._counted
        below = np.concatenate([[0.0], np.cumsum(counts) / len(self.rows)]) ** rows
        return values, np.diff(below)

    def quantile(self, rows: int, share: float) -> int:
        """The length that the longest of so many rows reaches at most in `share` of all cases."""
        values, likely = self.longest_of(rows)
        return int(values[min(int(np.searchsorted(np.cumsum(likely), share)), len(values) - 1)])

    def padded_mean(self, rows: int) -> float:
        """Expected length of the longest of so many rows."""
        values, likely = self.longest_of(rows)
        return float((values * likely).sum())

    def second_capture(self) -> int | None:
        """Where to capture once more, so that sizes are known as functions of length: at the usual micro-batch. None where all are alike."""
        if self.fixed:
            return None
        usual = self._like_cap(self.padded_mean(self.micro_batch))
        return usual if usual <= 0.9 * self.cap else self._like_cap(self.cap / 2)

    def _like_cap(self, length: float) -> int:
        # As far beyond a whole step as the cap is: where that is not at all, attention does not pad its mask, and elsewhere it does in each layer.
        beyond = self.cap % _STEP
        return min(max(round((length - beyond) / _STEP) * _STEP, 0 if beyond else _STEP) + beyond, self.cap)

    def grid(self, ranks: int, captured: tuple[int, int]) -> tuple[int, ...]:
        """Lengths at which to price: those of the captures, and enough between to draw a curve through."""
        if self.fixed or captured[0] == captured[1]:
            return (captured[0],)
        wanted = {self.quantile(self.micro_batch, share) for share in (0.05, 0.5, 0.95)}
        wanted |= {self.quantile(self.micro_batch * ranks, share) for share in (0.5, 0.95)}
        return tuple(sorted({_rounded(length, self.cap) for length in wanted} | set(captured)))

    def weights(self, grid: tuple[int, ...], rows: int) -> Floats:
        """Weights of the grid's points in the mean, over the longest of so many rows, of a function that is straight between them; sum 1."""
        if (grid, rows) not in self._weights:
            values, likely = self.longest_of(rows)
            self._weights[grid, rows] = np.array([(likely * _hat(values, grid, point)).sum() for point in range(len(grid))])
        return self._weights[grid, rows]

    def in_order(self, count: int, ranks: int) -> Ints:
        """Lengths of the first `count` micro-batches of rank 0 among so many, as the Program feeds them: of its rows in their order, tokens."""
        first = np.arange(count) * ranks * self.micro_batch
        rows = self.rows[(first[:, None] + np.arange(self.micro_batch)) % len(self.rows)]
        return np.asarray(rows.max(axis=1), np.int64)

    def draws(self, count: tuple[int, ...], seed: int = 0) -> Ints:
        """Lengths of so many micro-batches, drawn at random; of shape `count`."""
        draw = np.random.default_rng(seed)
        values, likely = self.longest_of(self.micro_batch)
        below = np.cumsum(likely)
        return values[np.minimum(np.searchsorted(below, draw.random(count)), len(values) - 1)]


def of(job: Job, rows: npt.ArrayLike | None = None) -> Lengths:
    """The row lengths of `job`: fixed, or those given in `rows` (tokens, before truncation)."""
    cap = job.data.cap
    sample = np.array([cap], np.int64) if rows is None or job.data.seq_len is not None else np.minimum(np.asarray(rows, np.int64), cap)
    return Lengths(sample, job.recipe.micro_batch, cap)


def mean_weights(grid: tuple[int, ...], lengths: Ints) -> Floats:
    """Weights of the grid's points in the mean, over these lengths, of a function that is straight between them; sum 1."""
    counts = np.bincount(lengths.reshape(-1))
    values = np.flatnonzero(counts)
    likely = counts[values] / lengths.size
    return np.array([(likely * _hat(values, grid, point)).sum() for point in range(len(grid))])


def _rounded(length: float, cap: int) -> int:
    return min(max(round(length / _STEP) * _STEP, _STEP), cap)


def _hat(values: Ints, grid: tuple[int, ...], point: int) -> Floats:
    unit = np.zeros(len(grid))
    unit[point] = 1.0
    return np.interp(values, grid, unit)
