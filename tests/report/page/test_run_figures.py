"""From Runs to figures: every curve has its place, holes stay holes, and what cannot be drawn is refused with its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.errors import RecordError
from membound.report.charts import run_values
from membound.report.charts.data import Amount, Noted
from membound.report.charts.run_figures import KINDS, one_over_time, over_time
from membound.report.charts.run_series import grid, series
from membound.report.charts.table import Table
from membound.report.page import of_runs
from membound.run.schema import Fits, Missing, Run, Value
from membound.run.series import CURVE_TABLE, CURVES, GPU_PERIOD, Curve

# Bits are no numbers to be drawn: they have a table of their own.
DRAWN = [curve for curve in CURVES if curve.name != "throttle"]


@pytest.mark.parametrize("curve", DRAWN, ids=lambda curve: f"{curve.table}:{curve.name}")
def test_every_curve_of_the_registry_has_its_figure(curve: Curve, make: Callable[..., Run]) -> None:
    run = make(tables={curve.table: pa.table({"time": [0.0, 1.0], "gpu": [0, 0], "node": [0, 0], curve.name: [1.0, 2.0]})})
    (figure,) = over_time({"run": run})
    assert figure.unit == curve.unit
    assert figure.series[0].values.tolist() == [[1.0, 2.0]]


def test_curves_of_one_figure_have_one_unit() -> None:
    units = {(curve.table, curve.name): curve.unit for curve in CURVES}
    assert all(len({units[kind.table, name] for name in kind.curves}) == 1 for kind in KINDS)


def test_a_curve_tells_where_it_comes_from(run: Run) -> None:
    figure = one_over_time("GPU power", {"run": run})
    assert figure is not None
    (power,) = figure.series
    assert (power.origin, power.sensor, power.tier, power.native, power.reason) == ("measured", "NVML", "nvml", 0.1, "the driver was busy")
    assert power.missing == np.isnan(power.values).sum() > 0
    assert figure.marks is run.tables["marks"]


def test_a_figure_says_its_mean_and_its_peak_and_whose_it_is(run: Run) -> None:
    figure = one_over_time("Use of GPU and HBM", {"run": run})
    assert figure is not None
    assert figure.says.startswith("GPU busy 76")
    assert "98.7 % at most on GPU 1 after 37.0 s" in figure.says


@pytest.mark.parametrize(("capacity", "drawn"), [(79.6, True), (2000.0, False)])
def test_a_capacity_is_drawn_unless_it_would_press_the_curves_flat(capacity: float, drawn: bool, make: Callable[..., Run]) -> None:
    figure = one_over_time("GPU memory", {"run": make(values={"gpu.memory.capacity": Value(capacity * 2**30, "B", 0.0, 1e15, "made by hand")})})
    assert figure is not None
    assert [line.label for line in figure.references] == ["capacity"] * drawn
    assert any("far above" in note for note in figure.notes) is not drawn


def test_like_curves_of_several_runs_share_a_figure(clocks: Mapping[str, Run]) -> None:
    figure = one_over_time("Temperature", clocks)
    assert figure is not None
    assert [each.name for each in figure.series] == [f"{curve}, {label}" for curve in ("GPU die", "HBM") for label in clocks]


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), max_size=6), st.floats(0, 1e6))
def test_rows_in_any_order_and_with_holes_find_their_places(order: list[int], dropped: set[int], start: float) -> None:
    rows = [(start + (at // 2) * GPU_PERIOD, at % 2, float(at)) for at in order if at not in dropped]
    table = pa.table({"time": [row[0] for row in rows], "gpu": [row[1] + 4 for row in rows], "power": [row[2] for row in rows]})
    placed = grid(table, "gpu")
    assert placed is not None
    values = placed.place(table.column("power"))
    assert np.isfinite(values).sum() == len(rows)
    for time, gpu, value in rows:
        at = round((time - placed.start) / placed.period)
        assert values[placed.devices.index(gpu + 4), at] == value


@pytest.mark.parametrize("nothing", [None, float("nan"), float("inf"), -float("inf")])
def test_a_value_that_could_not_be_read_is_a_hole_and_not_zero(nothing: float | None, make: Callable[..., Run]) -> None:
    table = pa.table({"time": [0.0, 0.02, 0.04], "gpu": [0, 0, 0], "power": pa.array([500.0, nothing, 510.0], pa.float64())})
    placed = grid(table, "gpu")
    assert placed is not None
    found = series(make(tables={"gpu": table}), "gpu", "power", placed, "power")
    assert np.isnan(found.values).tolist() == [[False, True, False]]
    assert found.missing == 1


def test_a_sensor_that_gave_nothing_says_why(make: Callable[..., Run]) -> None:
    gpu = pa.table({"time": [0.0, 0.02], "gpu": [0, 0], "nvlink.sent": pa.nulls(2)})
    curves = pa.table([["gpu"], ["nvlink.sent"], ["nvml"], ["NVML"], [0.02], [2], ["this board has no NVLink"]], schema=CURVE_TABLE)
    (figure,) = over_time({"run": make(tables={"gpu": gpu, "curves": curves})})
    assert figure.says == "Sent: no sample could be read (this board has no NVLink)."


def test_of_two_rows_for_one_sample_the_higher_stays() -> None:
    table = pa.table({"time": [0.0, 0.001, 0.02, 0.04, 0.06], "gpu": [0] * 5, "power": [1.0, 9.0, 3.0, 4.0, 5.0]})
    placed = grid(table, "gpu")
    assert placed is not None
    assert placed.place(table.column("power")).tolist() == [[9.0, 3.0, 4.0, 5.0]]


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"gpu": [0], "power": [1.0]}, "lacks its column time"),
        ({"time": [0.0], "power": [1.0]}, "lacks its column gpu"),
        ({"time": ["now"], "gpu": [0]}, "column time holds no numbers"),
        ({"time": [None], "gpu": [0]}, "column time"),
        ({"time": [0.0, 0.02, 0.04, 1e18], "gpu": [0] * 4}, "too long to be drawn"),
    ],
)
def test_series_on_no_grid_are_refused_with_their_table(table: dict[str, list[object]], word: str) -> None:
    with pytest.raises(RecordError, match=f"table gpu: .*{word}"):
        grid(pa.table(table), "gpu")


class TestPage:
    """What any Runs become."""

    def test_a_run_of_values_alone_makes_a_page(self, make: Callable[..., Run]) -> None:
        page = of_runs.page({"run": make(tables={})})
        assert [section.title for section in page.sections] == ["Values", "About"]

    @pytest.mark.parametrize("tables", [{"gpu": pa.table({"time": pa.array([], pa.float64()), "gpu": []})}, {"marks": pa.table({})}])
    def test_empty_tables_make_no_figures(self, tables: dict[str, pa.Table], make: Callable[..., Run]) -> None:
        assert [section.title for section in of_runs.page({"run": make(tables=tables)}).sections] == ["Values", "About"]

    def test_columns_that_nobody_knows_are_named_and_not_drawn(self, make: Callable[..., Run]) -> None:
        page = of_runs.page({"run": make(tables={"gpu": pa.table({"time": [0.0], "gpu": [0], "sparkle": [1.0]})})})
        assert any("sparkle" in line for line in page.about)

    def test_the_header_has_the_verdict_and_key_values(self, run: Run) -> None:
        page = of_runs.page({"run": replace(run, fits=Fits(True, False, "each node needs 300 GiB more"))})
        assert [(verdict.what, verdict.good) for verdict in page.verdicts] == [("GPU memory", True), ("host memory", False), ("why", None)]
        assert ("step time", "2.00 s", "1.90 to 2.10 s") in [(fact.name, fact.value, fact.note) for fact in page.facts]

    def test_a_missing_value_stands_with_its_reason(self, run: Run) -> None:
        rows = {row[0].text: row[1] for row in run_values.of_one(run).rows if isinstance(row[0], Noted)}
        assert rows["host.memory.bandwidth.mean"] == Missing("no counter of the memory controller could be read")
        assert rows["gpu.busy"] == Amount(0.74, "1", 0.74 * 0.9, 0.74 * 1.1)

    def test_runs_side_by_side_have_ratios_to_the_first(self, make: Callable[..., Run]) -> None:
        slow, fast = make(), make(values={"step.time": Value(1.0, "s", 0.9, 1.1, "made by hand"), "gpu.temperature.peak": Missing("no sensor")})
        table = run_values.of_many({"slow": slow, "fast": fast})
        rows = {row[0].text: row[1:] for row in table.rows if isinstance(row[0], Noted)}
        assert rows["step.time"][-1] == "0.500"
        assert rows["gpu.busy"][2:] == (None, None)
        assert rows["gpu.temperature.peak"][-1] is None

    def test_what_held_clocks_back_is_told_as_shares(self, run: Run) -> None:
        table = run_values.held_back({"run": run})
        assert isinstance(table, Table)
        ((label, reason, share),) = table.rows
        assert (label, reason) == ("run", "software power cap")
        assert share == pytest.approx(0.2, abs=0.01)
