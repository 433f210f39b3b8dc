"""The grid of a recording, on data: absolute, in order, nothing twice, what is missed counted; each value with its validity and age."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from membound.errors import InputError, MeasureError, RecordError, StorageError
from membound.measure.recording import Recording, Source, read
from membound.measure.samples import Samples
from membound.measure.sensors import columns
from membound.measure.sensors.base import Validity
from membound.measure.source import Fault
from membound.run import series
from tests.measure.sampling.conftest import H100, Record

CURVES = [(table, curve) for table, curves in columns.TABLES.items() for curve in curves]


@pytest.mark.parametrize(("table", "curve"), CURVES)
def test_every_column_of_the_sampler_is_a_curve_of_a_run(table: str, curve: str) -> None:
    assert series.curve(table, curve).name == curve


def test_rows_lie_on_the_absolute_grid_in_order_and_once(recorded: Samples) -> None:
    gpu = recorded.tables["gpu"]
    times, gpus = gpu["time"].to_numpy(), gpu["gpu"].to_numpy()
    ticks = times / series.GPU_PERIOD
    assert np.abs(ticks - np.round(ticks)).max() < 1e-6
    places = list(zip(np.round(ticks).astype(int).tolist(), gpus.tolist(), strict=True))
    assert places == sorted(set(places))
    assert set(gpus.tolist()) == set(range(8))


def test_every_tick_has_a_row_of_each_gpu(recorded: Samples) -> None:
    _, counts = np.unique(recorded.tables["gpu"]["time"].to_numpy(), return_counts=True)
    assert set(counts.tolist()) == {8}


def test_ticks_without_a_row_are_counted(recorded: Samples) -> None:
    grid = recorded.manifest["grid"]
    assert grid["due"] == grid["ticks"] + grid["missed"]
    assert grid["ticks"] == len(np.unique(recorded.tables["gpu"]["time"].to_numpy()))


def test_the_host_has_a_grid_of_its_own(recorded: Samples) -> None:
    ticks = recorded.tables["host"]["time"].to_numpy() / 0.2
    assert np.abs(ticks - np.round(ticks)).max() < 1e-6
    assert (np.diff(ticks) > 0.5).all()


@pytest.mark.parametrize(("table", "curve"), CURVES)
def test_a_value_is_null_exactly_where_it_is_not_valid(recorded: Samples, table: str, curve: str) -> None:
    fresh = recorded.freshness(table)
    valid = np.array(fresh[f"{curve}.validity"].to_pylist()) == Validity.OK.name.lower()
    null = np.array(recorded.tables[table][curve].is_null().to_pylist())
    assert (valid == ~null).all()


@pytest.mark.parametrize(("table", "curve"), CURVES)
def test_the_curves_table_tells_the_tier_and_what_is_missing(recorded: Samples, table: str, curve: str) -> None:
    row = next(row for row in recorded.tables["curves"].to_pylist() if (row["table"], row["curve"]) == (table, curve))
    assert recorded.tables["curves"].schema == series.CURVE_TABLE
    assert row["missing"] == recorded.tables[table][curve].null_count
    assert (row["reason"] is not None) == (row["missing"] > 0 or row["tier"] == "none")


def test_ages_grow_until_a_value_is_new(recorded: Samples) -> None:
    fresh = recorded.freshness()
    mine = fresh["gpu"].to_numpy() == 0
    ages = fresh["power.age"].to_numpy(zero_copy_only=False)[mine]
    values = recorded.tables["gpu"]["power"].to_numpy(zero_copy_only=False)[mine]
    times = recorded.tables["gpu"]["time"].to_numpy()[mine]
    changed = np.diff(values) != 0
    assert (ages[1:][changed] == 0).all()
    assert np.allclose(np.diff(ages)[~changed], np.diff(times)[~changed])


def test_native_periods_are_learned_at_the_start(recorded: Samples) -> None:
    fields = next(sensor for sensor in recorded.manifest["sensors"] if sensor["name"] == "nvml.fields")
    # Power of the synthetic board is new every 100 ms; half a second of watching sees a few of them, on a busy machine a little off.
    assert 0.05 < fields["learned_period_s"]["power"] < 0.3
    # Its memory clock never changes: there is nothing to learn, and no number is made up.
    assert next(row["period"] for row in recorded.tables["curves"].to_pylist() if row["curve"] == "clock.memory") is None


def test_the_manifest_says_what_the_sampler_cost_and_on_which_clock(recorded: Samples) -> None:
    manifest = recorded.manifest
    assert recorded.ended == "stopped"
    assert 0 < manifest["sampler"]["cpu_share"] < 1
    assert manifest["sampler"]["restarts"] == {"sampler": 0, "drain": 0}
    assert manifest["rows_lost"] == 0
    assert manifest["wall_clock_steps"] == []
    assert [clock["monotonic_ns"] for clock in manifest["clocks"]] == sorted(clock["monotonic_ns"] for clock in manifest["clocks"])
    assert {sensor["tier"] for sensor in manifest["sensors"]} >= {"pm", "gpm", "nvml", "kernel"}
    assert manifest["hardware"]["gpus"][0]["supported_memory_clocks_mhz"] == [2619, 1593]
    assert all(sensor["asked"]["calls"] > 0 and sensor["asked"]["error"] is None for sensor in manifest["sensors"])


def test_a_tick_that_a_slow_call_overruns_is_skipped_and_counted(record: Record) -> None:
    samples = record(0.8, Fault("slow", "field.186", cost=0.05), period=0.01)
    # Each call holds its lane for five ticks: the rows go on, and say that they hold an older reading.
    assert samples.manifest["reads_missed"] > 10
    assert samples.manifest["grid"]["rows_without_reading"] > 0.5
    assert len(samples.freshness()["late"].drop_null()) < 0.5 * len(samples.tables["gpu"])


def test_a_call_that_costs_too_much_is_asked_less_often(record: Record) -> None:
    sensors = {sensor["name"]: sensor for sensor in record(0.2, Fault("busy", "clock.core", cost=0.02)).manifest["sensors"]}
    assert sensors["nvml.clocks"]["asked_every_s"] > sensors["nvml.clocks"]["wished_every_s"]
    # Power waits for half of the time in which it is formed at most, whatever else is dear.
    assert sensors["nvml.fields"]["asked_every_s"] <= 0.06 + 1e-9


def test_only_the_gpus_that_were_asked_for(tmp_path: Path) -> None:
    with Recording(tmp_path / "r", Source(H100, 4), gpus=[1, 3], learn=0, host_period=0.1):
        pass
    assert set(read(tmp_path / "r").manifest["gpus"]) == {1, 3}


def test_without_a_gpu_the_host_is_recorded_and_the_cure_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with Recording(folder, Source(H100), gpus=[], learn=0, host_period=0.05):
        while len(read(folder).tables["host"]) < 3:
            time.sleep(0.01)
    samples = read(folder)
    assert len(samples.tables["gpu"]) == 0
    assert samples.manifest["grid"] == {"ticks": 0}
    assert samples.tables["host"]["memory.used"].null_count == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"period": 0.0}, "period: 0.0: choose a grid between"),
        ({"period": 60.0}, "period: 60.0: choose a grid between"),
        ({"period": 1.0, "host_period": 0.5}, "host_period: 0.5: choose a grid between that of the GPUs"),
    ],
)
def test_a_grid_out_of_range_is_refused(tmp_path: Path, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recording(tmp_path, Source(H100), **arguments)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(InputError, match="holds something already"), Recording(tmp_path, Source(H100)):
        pass
    assert (tmp_path / "precious").read_text() == "data"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another folder"), Recording(tmp_path / "file" / "r", Source(H100)):
        pass


@pytest.mark.parametrize(
    ("source", "gpus", "message"),
    [
        (Source("h100-synthetic"), None, "did you mean synthetic-h100"),
        (Source(H100, 2), [2], r"gpus: \[2\]: the driver counts 2 GPUs"),
        (Source(H100, 1, (Fault("crash"),)), None, "the sampler did not start"),
    ],
)
def test_a_sampler_that_does_not_start_says_why(tmp_path: Path, source: Source, gpus: list[int] | None, message: str) -> None:
    with pytest.raises(MeasureError, match=message), Recording(tmp_path / "r", source, gpus=gpus):
        pass


def test_a_folder_without_a_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no recording"):
        read(tmp_path)
