"""How many steps meet a row length for the first time."""

from __future__ import annotations

import numpy as np
import pytest

from membound.cost.cudnn_graphs import first_met


def test_the_first_step_always_does_and_with_one_length_no_other() -> None:
    assert first_met(np.full(7, 1 / 7), 0, 1) == pytest.approx(1)
    assert first_met(np.ones(1), 0, 4) == pytest.approx(1 / 4)
    assert first_met(np.ones(1), 1, 4) == 0


def test_it_is_what_draws_show() -> None:
    likely = np.array([0.5, 0.3, 0.15, 0.04, 0.01])
    draws = np.random.default_rng(0).choice(5, (4000, 30), p=likely)
    new = np.array([[length not in row[:at] for at, length in enumerate(row)] for row in draws])
    for before, steps in ((0, 10), (10, 20)):
        assert first_met(likely, before, steps) == pytest.approx(new[:, before : before + steps].mean(), abs=0.01)
