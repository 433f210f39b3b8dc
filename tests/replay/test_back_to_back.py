"""Kernels taken together come out as a walk over them one by one finds them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from membound.cost.resources import ROW, ROWS, Spent, nothing
from membound.replay.back_to_back import back_to_back
from membound.replay.timeline import later

COLUMNS = 3


def moment(seconds: float, resource: str) -> Spent:
    found = nothing(COLUMNS)
    found[[0, ROW[resource]]] = seconds * np.arange(1, COLUMNS + 1)
    return found


def walked(tail: Spent, host: Spent, launched: np.ndarray, durations: Spent) -> tuple[np.ndarray, np.ndarray, Spent]:
    """The same, kernel by kernel."""
    start, end = [], []
    for arrives, duration in zip(launched, durations, strict=True):
        here = host.copy()
        here[[0, ROW["launch"]]] += arrives
        begin = later(tail, here)
        tail = begin + duration
        start.append(begin[0])
        end.append(tail[0])
    return np.array(start), np.array(end), tail


# Whole numbers of seconds: where both are over at once, history is the stream's own, and no rounding decides.
kernels = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30)


@given(st.integers(0, 40), st.integers(0, 20), kernels)
def test_as_one_by_one(free: int, launching: int, each: list[tuple[int, int]]) -> None:
    costs, seconds = np.array(each, np.float64).T
    durations = np.zeros((len(each), ROWS, COLUMNS))
    durations[:, [0, ROW["hbm"]]] = seconds[:, None, None] * np.array([1.0, 2.0, 0.0])
    case = moment(free, "nvlink"), moment(launching, "launch"), np.cumsum(costs)[:, None] * np.array([1.0, 1.0, 3.0]), durations
    for together, alone in zip(back_to_back(*case), walked(*case), strict=True):
        np.testing.assert_allclose(together, alone)
