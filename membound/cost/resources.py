"""What a second of a step can hang on. Every duration is split over these, so that sensitivities add up to the whole."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

RESOURCES: Final = ("compute", "hbm", "fixed", "launch", "nvlink", "network", "pcie", "ddr", "host_compute", "nvme")
"""compute: the GPU's arithmetic and L2, which its core clock moves; fixed: starts and tails of kernels, latencies of links; launch: the
host's Python and dispatcher; host_compute: the host's cores at work on tensors."""

ROW: Final = {name: number + 1 for number, name in enumerate(RESOURCES)}
"""Row of each resource in a duration's column; row 0 is the whole."""

ROWS: Final = len(RESOURCES) + 1

Spent = npt.NDArray[np.float64]
"""Durations split over resources: [ROWS, ...], row 0 the sum of the others, s."""


def nothing(*shape: int) -> Spent:
    """No time at all; [ROWS, *shape]."""
    return np.zeros((ROWS, *shape))


def spent(**seconds: npt.NDArray[np.float64]) -> Spent:
    """A duration from its parts, by resource, each of one shape."""
    first = next(iter(seconds.values()))
    result = np.zeros((ROWS, *np.shape(first)))
    for name, value in seconds.items():
        result[ROW[name]] = value
    result[0] = result[1:].sum(axis=0)
    return result
