"""Measured neighbours: a table over logarithmic axes, read in between, and its points predicted from all others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from membound.cost.law import Array


@dataclass(frozen=True)
class Table:
    """Values on a grid; between its points they are linear in the logarithms of the coordinates, beyond its ends constant."""

    axes: tuple[Array, ...]
    """Coordinates along each axis, increasing."""
    values: Array
    """One value for each point; NaN where none was measured."""

    def filled(self) -> Table:
        """The table with its holes filled from their neighbours along every axis."""
        holes = np.isnan(self.values)
        if not holes.any():
            return self
        around = self.without_each(tuple(range(len(self.axes))))
        return Table(self.axes, np.where(holes, np.where(np.isnan(around), np.nanmedian(self.values), around), self.values))

    def at(self, *coordinates: Array) -> Array:
        """Values at `coordinates`, one array of the same length for each axis; the table must have no holes."""
        places = [_place(axis, where) for axis, where in zip(self.axes, coordinates, strict=True)]
        total = np.zeros(coordinates[0].shape)
        for corner in np.ndindex(*(2,) * len(places)):
            weight = np.ones(total.shape)
            index: list[npt.NDArray[np.int64]] = []
            for upper, (low, fraction) in zip(corner, places, strict=True):
                weight = weight * (fraction if upper else 1 - fraction)
                index.append(low + upper)
            total += weight * self.values[tuple(index)]
        return total

    def without_each(self, along: tuple[int, ...]) -> Array:
        """Each point as its neighbours along the axes `along` have it, itself left out: the mean over these axes. NaN where no axis has any."""
        guesses = np.stack([_between(self.values, np.log(self.axes[axis]), axis) for axis in along])
        known = ~np.isnan(guesses)
        count = known.sum(axis=0)
        total = np.where(known, guesses, 0.0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _place(axis: Array, where: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """Index of the point below, and how far towards the next one, 0 to 1."""
    logs = np.log(axis)
    inside = np.clip(np.log(np.maximum(where, axis[0])), logs[0], logs[-1])
    low = np.clip(np.searchsorted(logs, inside, side="right") - 1, 0, max(len(axis) - 2, 0))
    return low, (inside - logs[low]) / (logs[low + 1] - logs[low])


def _between(values: Array, logs: Array, axis: int) -> Array:
    """Each point from the two beside it on `axis`; from the one where it stands at an end or beside a hole."""
    moved = np.moveaxis(values, axis, 0)
    below = np.concatenate([np.full_like(moved[:1], np.nan), moved[:-1]])
    above = np.concatenate([moved[1:], np.full_like(moved[:1], np.nan)])
    share = np.full(len(logs), 0.5)
    share[1:-1] = (logs[1:-1] - logs[:-2]) / (logs[2:] - logs[:-2])
    share = share.reshape(-1, *(1,) * (moved.ndim - 1))
    both = below * (1 - share) + above * share
    guess = np.where(np.isnan(both), np.where(np.isnan(below), above, below), both)
    return np.moveaxis(guess, 0, axis)
