"""A walk over knots finds what one item after the other would: every moment, and what it hangs on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membound.cost.resources import ROW, ROWS
from membound.replay.pricing import Prices
from membound.replay.program import Program, compiled
from membound.replay.timeline import Timeline, play, play_each
from membound.trace.builder import TraceBuilder
from membound.trace.schema import KIND, PHASE
from tests.replay.plain_player import played

KINDS = ("kernel", "copy_h2d", "copy_d2h", "collective", "host", "record", "wait", "sync")
# How often each kind is drawn: rows of kernels, as in real steps; events all the time; copies; or anything.
MIXES = {
    "rows": (60, 0.2, 0.1, 1, 0.1, 1, 1, 0.2),
    "events": (6, 0.1, 0.1, 2, 0.05, 6, 6, 0.1),
    "copies": (6, 2, 1, 1, 0.2, 2, 2, 0.1),
    "anything": (1, 1, 1, 1, 1, 1, 1, 1),
}
PHASES = ("forward", "backward", "optimizer")
# What each kind hangs on here.
RESOURCES = {"kernel": ("compute", "hbm", "fixed"), "collective": ("nvlink", "fixed"), "host": ("ddr",), "copy_h2d": ("pcie",), "copy_d2h": ("pcie",)}
COLUMNS = 3


def program(draw: np.random.Generator, count: int, mix: str, streams: int, detached: bool) -> Program:
    """`count` items drawn at random, in phases of drawn lengths."""
    builder = TraceBuilder()
    weights = np.array(MIXES[mix])
    kinds = draw.choice(len(KINDS), count, p=weights / weights.sum())
    phases = np.sort(draw.integers(0, len(PHASES), count))
    for kind, phase in zip(kinds.tolist(), phases.tolist(), strict=True):
        at = builder.position
        at.phase, at.step, at.micro = PHASE[PHASES[phase]], 0, 0
        target = int(draw.integers(-1, streams)) if KINDS[kind] == "sync" else int(draw.integers(0, 4))
        builder.add(KIND[KINDS[kind]], 0, int(draw.integers(0, streams) ** 2 // streams), target, flag=int(draw.random() < 0.8))
    trace = builder.finish(
        job={"recipe": {"engine": "none"}}, versions={}, rank=0, ranks=1, ranks_per_node=1, steps=1, micro_steps=1, repeat=1, parameters=1, trained=1,
    )  # fmt: skip
    found = compiled(trace)
    apart = (found.kind == KIND["collective"]) & (found.phase == PHASE["backward"]) & detached
    return replace(found, detached=apart)


def prices(draw: np.random.Generator, whole: Program, launch: float, slower: bool) -> Prices:
    """Drawn seconds, of which no two sums are alike; launches of `launch` seconds in the mean."""
    count = len(whole)
    table = np.zeros((ROWS, count, COLUMNS))
    for kind, resources in RESOURCES.items():
        some = np.flatnonzero(whole.kind == KIND[kind])
        for resource in resources:
            table[ROW[resource], some] = draw.exponential(1e-5, (len(some), COLUMNS))
    table[0] = table[1:].sum(axis=0)
    factors = np.where((whole.kind == KIND["kernel"])[:, None], 1 + draw.random((count, COLUMNS)), 1.0) if slower else None
    return Prices(table, np.arange(count), draw.exponential(launch, count), np.zeros(count), np.zeros((count, COLUMNS)), factors)


def same(line: Timeline, whole: Program, priced: Prices, factor: np.ndarray) -> None:
    plain = played(whole, priced, factor)
    for name in ("start", "end", "host", "borders"):
        np.testing.assert_allclose(getattr(line, name), getattr(plain, name), rtol=1e-9, atol=1e-13, err_msg=name)


seeds = st.integers(0, 2**32 - 1)
# Beside durations of 1e-5 s in the mean.
launches = st.sampled_from([0.0, 1e-7, 3e-6, 1e-5, 1e-4])


@settings(max_examples=300, deadline=None)
@given(seeds, st.integers(1, 60), st.sampled_from([*MIXES]), st.integers(1, 4), launches, st.booleans(), st.booleans())
def test_short_programs(seed: int, count: int, mix: str, streams: int, launch: float, detached: bool, slower: bool) -> None:
    draw = np.random.default_rng(seed)
    whole = program(draw, count, mix, streams, detached)
    priced = prices(draw, whole, launch, slower)
    same(play(whole, priced), whole, priced, np.ones(COLUMNS))


# Long enough for the queue to be full.
@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from([*MIXES]), st.integers(1, 3), launches, st.booleans())
def test_long_programs(seed: int, mix: str, streams: int, launch: float, detached: bool) -> None:
    draw = np.random.default_rng(seed)
    whole = program(draw, int(draw.integers(1100, 2500)), mix, streams, detached)
    priced = prices(draw, whole, launch, False)
    same(play(whole, priced), whole, priced, np.ones(COLUMNS))


@settings(max_examples=50, deadline=None)
@given(seeds, st.sampled_from([*MIXES]), launches)
def test_launches_of_another_factor_in_each_column(seed: int, mix: str, launch: float) -> None:
    draw = np.random.default_rng(seed)
    whole = program(draw, 50, mix, 3, False)
    priced, factor = prices(draw, whole, launch, False), draw.random(COLUMNS) * 3
    same(play(whole, priced, factor), whole, priced, factor)


@pytest.mark.parametrize("mix", MIXES)
def test_machines_side_by_side_are_as_each_alone(mix: str) -> None:
    draw = np.random.default_rng(1)
    whole = program(draw, 1500, mix, 3, True)
    several = [prices(draw, whole, launch, launch > 1e-6) for launch in (1e-7, 1e-5, 1e-4)]
    for priced, line in zip(several, play_each(whole, several), strict=True):
        alone = play(whole, priced)
        for name in ("start", "end", "host", "borders"):
            np.testing.assert_array_equal(getattr(line, name), getattr(alone, name))


@pytest.mark.parametrize("mix", MIXES)
def test_there_are_fewer_knots_than_items(mix: str) -> None:
    whole = program(np.random.default_rng(1), 2000, mix, 3, False)
    knots = whole.knots
    assert len(knots.kind) < len(whole) * (0.3 if mix == "rows" else 1.2)
    # Each hangs on earlier ones, and every item that takes time has its place.
    assert (np.stack([knots.before, knots.other, knots.base])[:, 1:] < np.arange(1, len(knots.kind))).all()
    timed = np.isin(whole.kind, [KIND[kind] for kind in RESOURCES])
    assert np.array_equal(np.sort(knots.order), np.flatnonzero(timed))
