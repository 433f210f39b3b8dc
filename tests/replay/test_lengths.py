"""Row lengths: weights and means against every case counted out, and against drawing lots."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.replay.lengths import Lengths, mean_weights, of
from membound.spec.job import Job

few = st.lists(st.integers(1, 64), min_size=2, max_size=4)


def lengths(rows: list[int], micro_batch: int = 2, cap: int = 64) -> Lengths:
    return Lengths(np.array(rows, np.int64), micro_batch, cap)


@pytest.fixture(scope="module")
def alpaca() -> Lengths:
    from membound.spec.lengths import stored

    job = Job.model_validate({"model": "tiny", "data": {"lengths": "alpaca", "max_length": 512}, "recipe": {"micro_batch": 4}})
    return of(job, stored("alpaca"))


@given(few, st.integers(1, 4))
def test_the_longest_of_some_rows_is_the_mean_over_every_way_to_draw_them(rows: list[int], drawn: int) -> None:
    cases = [max(case) for case in itertools.product(rows, repeat=drawn)]
    assert lengths(rows).padded_mean(drawn) == pytest.approx(np.mean(cases))
    values, likely = lengths(rows).longest_of(drawn)
    assert likely.sum() == pytest.approx(1.0)
    assert dict(zip(values.tolist(), (likely * len(cases)).round(6).tolist(), strict=True)) == {
        value: cases.count(value) for value in sorted(set(rows))
    }


@pytest.mark.parametrize("rows", [1, 4, 32])
def test_weights_add_up_and_give_a_line_its_exact_mean(alpaca: Lengths, rows: int) -> None:
    grid = alpaca.grid(8, (512, alpaca.second_capture() or 512))
    weights = alpaca.weights(grid, rows)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()
    inside = np.clip(alpaca.rows, grid[0], grid[-1])
    assert weights @ np.array(grid) == pytest.approx(Lengths(inside, 4, 512).padded_mean(rows))


def test_drawn_micro_batches_have_the_mean_that_is_worked_out(alpaca: Lengths) -> None:
    drawn = alpaca.draws((200_000,))
    spread = drawn.std() / np.sqrt(len(drawn))
    assert abs(drawn.mean() - alpaca.padded_mean(4)) < 5 * spread
    assert drawn.max() <= 512


def test_quantiles_are_of_the_longest_row(alpaca: Lengths) -> None:
    values, likely = alpaca.longest_of(32)
    for share in (0.05, 0.5, 0.95):
        reached = alpaca.quantile(32, share)
        assert likely[values < reached].sum() <= share <= likely[values <= reached].sum() + 1e-12


def test_more_ranks_wait_for_longer_rows(alpaca: Lengths) -> None:
    means = [alpaca.padded_mean(rows) for rows in (1, 4, 32, 256)]
    assert means == sorted(set(means))
    assert alpaca.mean == pytest.approx(means[0])


def test_the_grid_holds_both_captures_in_order(alpaca: Lengths) -> None:
    second = alpaca.second_capture()
    assert second is not None
    grid = alpaca.grid(8, (512, second))
    assert {512, second} <= set(grid)
    assert list(grid) == sorted(set(grid))


@given(st.lists(st.integers(1, 2048), min_size=2, max_size=20), st.integers(16, 2048), st.integers(1, 8))
def test_the_second_capture_lies_as_far_beyond_a_step_as_the_cap(rows: list[int], cap: int, micro_batch: int) -> None:
    """Masks are padded to whole steps: both captures do that, or neither does."""
    found = Lengths(np.minimum(rows, cap), micro_batch, cap)
    second = found.second_capture()
    assert (second is None) == found.fixed
    if second is not None:
        assert 0 < second <= cap
        assert (cap - second) % 8 == 0


def test_rows_of_one_length_need_no_second_capture() -> None:
    job = Job.model_validate({"model": "tiny", "data": {"seq_len": 256}})
    fixed = of(job, [3, 4, 5])
    assert (fixed.fixed, fixed.mean, fixed.second_capture(), fixed.grid(8, (256, 256))) == (True, 256.0, None, (256,))
    assert fixed.weights((256,), 32).tolist() == [1.0]


@given(st.lists(st.integers(1, 600), min_size=1, max_size=50))
def test_weights_of_given_lengths_give_the_mean_of_anything_straight_between(drawn: list[int]) -> None:
    grid, found = (64, 200, 512), mean_weights((64, 200, 512), np.array(drawn))
    assert found.sum() == pytest.approx(1.0)
    for curve in ([1.0, 1.0, 1.0], [1.0, 5.0, 2.0]):
        assert found @ np.array(curve) == pytest.approx(np.interp(drawn, grid, curve).mean())
