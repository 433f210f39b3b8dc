"""Kernels taken together come out as the recurrence of each one gives them: it starts when its predecessor ends or when its launch arrives."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from membound.cost.resources import ROW, ROWS
from membound.replay.back_to_back import START
from membound.replay.pricing import Prices
from membound.replay.program import compiled
from membound.replay.timeline import play
from membound.trace.builder import TraceBuilder
from membound.trace.schema import KIND, PHASE

kernels = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60)


@given(kernels)
def test_as_one_by_one(each: list[tuple[int, int]]) -> None:
    builder = TraceBuilder()
    builder.position.phase, builder.position.step, builder.position.micro = PHASE["forward"], 0, 0
    for _ in each:
        builder.add(KIND["kernel"])
    trace = builder.finish(
        job={"recipe": {"engine": "none"}}, versions={}, rank=0, ranks=1, ranks_per_node=1, steps=1, micro_steps=1, repeat=1, parameters=1, trained=1,
    )  # fmt: skip
    launches, seconds = np.array(each, np.float64).T
    table = np.zeros((ROWS, len(each), 1))
    table[[0, ROW["hbm"]], :, 0] = seconds
    line = play(compiled(trace), Prices(table, np.arange(len(each)), launches, np.zeros(len(each)), np.zeros((len(each), 1))))
    host = free = 0.0
    for item, (launch, lasts) in enumerate(each):
        host += launch
        free = max(free, host + START)
        assert abs(line.start[item, 0] - free) < 1e-9
        free += lasts
        assert abs(line.end[item, 0] - free) < 1e-9
    assert abs(line.borders[-1, 0, 0] - max(free, host)) < 1e-9
