"""Coarser views and packed samples: no peak is lost on the way to the page, and nothing missing becomes a number."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from membound.report.page.budget import OVERVIEW_BINS, pack_all
from membound.report.page.levels import Array, level_for, reduce
from membound.report.page.packing import MISSING, Block, Coding, extremes, pack

samples = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=70),
    elements=st.one_of(st.floats(-1e12, 1e12, allow_subnormal=False), st.just(float("nan"))),
)


def unpack(block: Block, devices: int) -> Array:
    """[part, device, bin] of a block, as the page's scripts read it."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(block.text)), np.uint8).reshape(2, -1)
    codes = (planes[0].astype(np.uint16) | planes[1].astype(np.uint16) << 8).view(np.int16).reshape(-1, devices, block.bins)
    if block.delta:
        codes = np.cumsum(codes, axis=-1, dtype=np.int16)
    return np.where(codes == MISSING, np.nan, block.offset + codes * block.step)


@given(samples, st.integers(0, 8))
def test_every_bin_reaches_the_extremes_of_its_samples(values: Array, level: int) -> None:
    found = reduce(values, level)
    size = 2**level
    for at in range(found.bins):
        part = values[:, at * size : (at + 1) * size]
        there = np.isfinite(part)
        assert np.array_equal(np.isnan(found.mean[:, at]), ~there.any(axis=1))
        for row in range(len(part)):
            if there[row].any():
                assert found.low[row, at] == part[row][there[row]].min()
                assert found.high[row, at] == part[row][there[row]].max()


@pytest.mark.parametrize(("count", "bins", "level"), [(0, 8, 0), (1, 8, 0), (8, 8, 0), (9, 8, 1), (16, 8, 1), (17, 8, 2), (180_000, 1024, 8)])
def test_the_finest_level_that_a_width_holds(count: int, bins: int, level: int) -> None:
    assert level_for(count, bins) == level


@given(samples, st.integers(0, 4), st.sampled_from([120, 4000, 32_000]))
def test_what_is_unpacked_is_what_was_packed_within_half_a_step(values: Array, level: int, steps: int) -> None:
    found = reduce(values, level)
    block = pack(found, Coding.of(extremes(values), steps))
    parts = unpack(block, len(values))
    wanted = np.stack([found.low] if level == 0 else [found.low, found.high, found.mean])
    assert np.array_equal(np.isnan(parts), np.isnan(wanted))
    room = block.step * (0.5 + 1e-6) + 1e-9 * max(map(abs, extremes(values)))
    assert np.nanmax(np.abs(parts - wanted), initial=0.0) <= room


@given(samples, st.sampled_from([120, 32_000]))
def test_the_extremes_of_a_curve_are_exact_however_coarse_its_steps(values: Array, steps: int) -> None:
    parts = unpack(pack(reduce(values, 0), Coding.of(extremes(values), steps)), len(values))
    present = parts[np.isfinite(parts)]
    if present.size:
        low, high = extremes(values)
        assert present.min() == low
        assert present.max() == pytest.approx(high, rel=1e-12, abs=1e-12 * max(abs(low), 1e-300))


def noisy(samples: int = 60_000) -> Array:
    return np.random.default_rng(0).normal(0, 1, (2, samples))


def smooth(samples: int = 60_000) -> Array:
    return np.round(np.linspace(40, 60, samples))[None].repeat(2, 0)


@pytest.mark.parametrize("room", [10_000_000, 400_000, 200_000, 120_000, 0])
def test_a_page_keeps_to_its_room_and_coarsens_what_costs_most(room: int) -> None:
    packed = pack_all([noisy(), smooth()], room)
    sizes = [len(each.fine.text) if each.fine else 0 for each in packed]
    overviews = sum(len(each.overview.text) for each in packed)
    # Sizes are told from pieces: a tenth is what that may miss by.
    assert sum(sizes) <= max(room - overviews, 0) * 1.1
    assert all(each.overview.bins <= OVERVIEW_BINS for each in packed)
    if sizes[0]:
        assert packed[1].fine is not None
        assert packed[1].fine.level == 0


@pytest.mark.parametrize("room", [10_000_000, 200_000, 0])
def test_the_peak_survives_every_budget(room: int) -> None:
    values = noisy()
    values[1, 31_234] = 77.0
    for each in pack_all([values], room):
        for block in (each.overview, each.fine):
            if block is not None:
                assert np.nanmax(unpack(block, 2)) == pytest.approx(77.0, rel=1e-12)


def test_a_short_series_is_its_own_overview() -> None:
    (packed,) = pack_all([noisy(500)], 10_000_000)
    assert packed.fine is None
    assert packed.overview.level == 0


def test_a_series_of_nothing_but_holes_is_packed() -> None:
    (packed,) = pack_all([np.full((3, 5000), np.nan)], 10_000_000)
    assert np.isnan(unpack(packed.overview, 3)).all()
