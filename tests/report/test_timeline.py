"""The memory timeline: its data, and that every kind of it can be drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.errors import RecordError
from membound.report.downsample import downsample
from membound.report.palette import ThemeName
from membound.report.spans import place, spans
from membound.report.timeline import render
from membound.report.timeline_data import drawn
from membound.run.schema import Fits, Run, Value

curves = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2**50)), min_size=1, max_size=300)


def table(points: list[tuple[int, int]]) -> pa.Table:
    """A timeline of these allocated and reserved bytes."""
    return pa.table({"instruction": range(len(points)), "allocated": [point[0] for point in points], "reserved": [point[1] for point in points]})


@given(curves, st.integers(1, 40))
def test_thinning_never_loses_a_peak_or_a_valley(points: list[tuple[int, int]], buckets: int) -> None:
    whole = table(points)
    thin = downsample(whole, buckets)
    assert thin.num_rows <= max(4 * buckets + 2, min(whole.num_rows, 4 * buckets))
    for name in ("allocated", "reserved"):
        before, after = np.asarray(whole.column(name)), np.asarray(thin.column(name))
        assert (before.max(), before.min()) == (after.max(), after.min())
        assert (before[0], before[-1]) == (after[0], after[-1])


@given(curves, st.integers(1, 40))
def test_thinning_keeps_rows_whole_and_in_order(points: list[tuple[int, int]], buckets: int) -> None:
    thin = downsample(table(points), buckets).to_pydict()
    rows = thin["instruction"]
    assert rows == sorted(set(rows))
    assert [points[row] for row in rows] == list(zip(thin["allocated"], thin["reserved"], strict=True))


def test_the_peak_of_every_bucket_survives() -> None:
    points = [(int(value), 0) for value in np.random.default_rng(0).integers(0, 10**9, 10_000)]
    kept = set(downsample(table(points), 10)["allocated"].to_pylist())
    assert {max(point[0] for point in points[start : start + 1000]) for start in range(0, 10_000, 1000)} <= kept


def phases(*runs: tuple[str, int, int]) -> pa.Table:
    """A timeline of ten rows for each phase, step, micro-step."""
    rows = [run for run in runs for _ in range(10)]
    names = ("phase", "step", "micro")
    return pa.table({"instruction": range(len(rows)), **{name: [row[at] for row in rows] for at, name in enumerate(names)}})


def test_phases_follow_one_another_without_gaps() -> None:
    found = spans(
        phases(("load", -1, -1), ("data", 0, 0), ("forward", 0, 0), ("other", -1, -1), ("backward", 0, 0), ("load", -1, -1), ("optimizer", 0, 0))
    )
    assert [(span.phase, span.start, span.end) for span in found] == [
        ("load", 0, 10), ("forward", 10, 40), ("backward", 40, 60), ("optimizer", 60, 70),
    ]  # fmt: skip


def test_phases_that_alternate_beyond_telling_are_merged_by_step() -> None:
    flapping = [(phase, step, 0) for step in range(2) for _ in range(40) for phase in ("forward", "backward")]
    assert [(span.phase, span.step) for span in spans(phases(*flapping))] == [("step", 0), ("step", 1)]


def test_a_short_phase_stays_wide_enough_to_see() -> None:
    long = pa.table(
        {"instruction": [0, 5, 100_000, 100_003], "phase": ["load", "load", "forward", "forward"], "step": [-1, -1, 0, 0], "micro": [-1, -1, 0, 0]}
    )
    bands = spans(long)
    x = place(np.array([0, 100_000, 100_004]), bands)
    assert x[0] == 0
    assert x[-1] == 1
    assert x[2] - x[1] > 0.04


@given(
    st.lists(
        st.sampled_from([("forward", 0, 0), ("backward", 0, 0), ("data", 0, 1), ("other", -1, -1), ("optimizer", 1, 0)]), min_size=1, max_size=30
    )
)
def test_places_rise_with_the_program(runs: list[tuple[str, int, int]]) -> None:
    made = phases(*runs)
    x = place(np.asarray(made["instruction"]), spans(made))
    assert (np.diff(x) > 0).all()
    assert x[0] == 0
    assert x[-1] < 1


def test_what_is_drawn_reaches_the_peak_and_sums_to_it(run: Run) -> None:
    whole = run.tables["memory.timeline"]
    data = drawn(run, whole, 64)
    assert data.allocated[data.peak] == max(whole["allocated"].to_pylist())
    assert sum(column[data.peak] for column in data.stack.values()) == data.allocated[data.peak]
    assert "gradients" not in data.stack
    assert data.highest == data.reserved.max() + 0.5 * 2**30  # type: ignore[union-attr]


@pytest.mark.parametrize(("reserved", "shown"), [(1.0, None), (1.3, 50.0 * 2**30)])
def test_what_rows_of_differing_length_reserve_is_told_where_it_is_more(run: Run, reserved: float, shown: float | None) -> None:
    whole = run.tables["memory.timeline"]
    most = reserved * max(whole["reserved"].to_pylist())
    more = {"gpu.memory.reserved.peak": Value(most, "B", most, most, ""), "gpu.memory.used.peak": Value(50.0 * 2**30, "B", 0.0, 1e12, "")}
    told = replace(run, origin="predicted", values={**run.values, **more})
    assert drawn(told, whole, 64).rows == shown
    assert render(told, "png", "light", 1200)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [500, 1200])
def test_pictures_are_drawn(run: Run, theme: ThemeName, width: int) -> None:
    picture = render(run, "png", theme, width)
    assert picture.startswith(b"\x89PNG")
    assert int.from_bytes(picture[16:20]) == width


def test_the_vector_picture_says_what_the_run_says_and_is_reproducible(run: Run) -> None:
    picture = render(run, "svg")
    said = " ".join("".join(ElementTree.fromstring(picture).itertext()).split())
    names = (
        "llama-7b, LoRA rank 16",
        "8 x h100-sxm (hgx-h100)",
        "model.layers.31.mlp.down_proj",
        "modeling_llama.py:174",
        "optimizer states",
        "step 2",
    )
    for words in (*names, "fits, 3.00 GiB spare", "capacity 16.0 GiB", "allocated", "program order, not time"):
        assert words in said
    assert render(run, "svg") == picture


@pytest.mark.parametrize("name", ["$\\frac{", "$x$", "\x1b[31mred", "a" * 5000, "模型 🐍", "<script>&amp;", "%s {0}"])
def test_any_name_can_be_drawn(run: Run, name: str) -> None:
    moment = {**run.about["moment"], "module": name, "line": name, "phase": name}
    named = replace(run, job={**run.job, "model": name}, machine={"name": name}, about={"moment": moment})
    ElementTree.fromstring(render(named, "svg", width=500))
    render(named, "png", width=1200)


@pytest.mark.parametrize("capacity", [1, 12 * 2**30, 13.2 * 2**30, 20 * 2**30, 2**45, None])
def test_any_capacity_can_be_drawn(run: Run, capacity: float | None) -> None:
    values = dict(run.values)
    del values["gpu.memory.capacity"]
    machine = {"gpu": {"hbm": {"capacity": capacity}}} if capacity else {}
    render(replace(run, values=values, machine=machine, fits=Fits(capacity is None, True)), "svg")


def test_one_row_can_be_drawn(run: Run) -> None:
    render(replace(run, tables={"memory.timeline": run.tables["memory.timeline"].slice(0, 1)}), "svg")


@pytest.mark.parametrize("tables", [{}, {"memory.timeline": pa.table({"instruction": [1]})}, {"memory.timeline": pa.table({"instruction": []})}])
def test_without_a_timeline_there_is_no_picture(run: Run, tables: dict[str, pa.Table]) -> None:
    with pytest.raises(RecordError, match=r"memory\.timeline"):
        render(replace(run, tables=tables), "png")
