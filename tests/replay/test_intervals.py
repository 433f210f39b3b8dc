"""Sets of intervals against the plainest way to count them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from membound.replay.intervals import covered, flowed

spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=1, max_size=20)
moments = np.linspace(0, 60, 61)


def split(intervals: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    start, length = np.array(intervals, np.float64).T
    return start, start + length


@given(spans)
def test_covered_counts_each_second_once(intervals: list[tuple[int, int]]) -> None:
    start, end = split(intervals)
    # Borders are whole numbers: a unit second is covered wholly or not at all.
    inside = [bool(((start <= second) & (second + 1 <= end)).any()) for second in range(60)]
    np.testing.assert_allclose(covered(start, end, moments), np.concatenate([[0], np.cumsum(inside)]))


@given(spans)
def test_all_of_an_amount_has_flowed_at_the_end_and_half_of_it_halfway(intervals: list[tuple[int, int]]) -> None:
    start, end = split(intervals)
    amounts = np.stack([np.ones(len(start)), np.arange(len(start), dtype=np.float64)])
    expected = [(row * np.clip((at - start) / np.maximum(end - start, 1e-12), 0, 1)).sum() for row in amounts for at in moments + 0.5]
    np.testing.assert_allclose(flowed(start, end, amounts, moments + 0.5).reshape(-1), expected, rtol=1e-6, atol=1e-6)


def test_nothing_covers_nothing() -> None:
    assert covered(np.array([3.0]), np.array([3.0]), moments).tolist() == [0.0] * len(moments)
