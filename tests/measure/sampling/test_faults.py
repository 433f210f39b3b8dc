"""Simulated faults: whatever a driver does, a value that could not be read is null, with its reason, and the other sensors go on."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc
import pytest

from membound.measure.samples import Samples
from membound.measure.source import Fault
from tests.measure.sampling.conftest import Record


def validities(samples: Samples, curve: str) -> list[str]:
    found: list[str] = samples.freshness()[f"{curve}.validity"].to_pylist()
    return found


def reason(samples: Samples, curve: str) -> str:
    return str(next(row["reason"] for row in samples.tables["curves"].to_pylist() if (row["table"], row["curve"]) == ("gpu", curve)))


@pytest.mark.parametrize(
    ("kind", "validity", "words"),
    [
        ("not_supported", "not_supported", "not supported by this device or driver"),
        ("no_permission", "no_permission", "run as a user whom the driver permits"),
        ("sentinel", "sentinel", "stands for 'not available'"),
        ("lost", "lost", "the GPU was lost"),
    ],
)
@pytest.mark.parametrize(("call", "curve"), [("field.186.2", "memory.power"), ("temperature", "temperature.gpu"), ("field.82", "temperature.hbm")])
def test_what_is_refused_is_null_with_its_reason(record: Record, kind: str, validity: str, words: str, call: str, curve: str) -> None:
    samples = record(0.15, Fault(kind, call))  # type: ignore[arg-type]
    assert samples.tables["gpu"][curve].null_count == len(samples.tables["gpu"])
    assert set(validities(samples, curve)) == {validity}
    assert words in reason(samples, curve)
    # Its neighbours in the same call are none the worse.
    assert samples.tables["gpu"]["energy"].null_count == 0


def test_a_gpu_that_falls_off_the_bus_leaves_the_other_one_and_what_came_before(record: Record) -> None:
    samples = record(1.5, Fault("lost", gpu=1, begin=0.9), gpus=2)
    gpu = samples.tables["gpu"].to_pydict()
    rows = list(zip(gpu["time"], gpu["gpu"], gpu["power"], gpu["clock.core"], strict=True))
    assert all(power is not None for _, number, power, _ in rows if number == 0)
    lost = [power is None for _, number, power, _ in rows if number == 1]
    assert not lost[0]
    assert lost[-1]
    # Once lost, lost for good.
    assert lost == sorted(lost)
    assert reason(samples, "power") == "the GPU was lost"


def test_a_stuck_counter_shows_its_age(record: Record) -> None:
    samples = record(1.0, Fault("stuck", "field.83"))
    ages = samples.freshness()["energy.age"].drop_null().to_numpy()
    assert np.allclose(np.diff(ages), np.diff(samples.tables["gpu"]["time"].to_numpy())[-len(ages) + 1 :])
    assert ages[-1] > 0.9
    # The power beside it is new all along.
    assert samples.freshness()["power.age"].drop_null().to_numpy().max() < 0.5


def test_a_sensor_that_hangs_goes_stale_while_all_others_go_on(record: Record) -> None:
    hang = Fault("slow", "memory", gpu=0, begin=0.7, cost=2.0, end=0.9)
    samples = record(3.5, hang, gpus=2)
    gpu = samples.tables["gpu"]
    # Far less than the sensor hangs.
    assert np.diff(np.unique(gpu["time"].to_numpy())).max() < 1.0
    fresh = samples.freshness()
    hung = np.array(fresh["gpu"].to_pylist()) == 0
    used = np.array(fresh["memory.used.validity"].to_pylist())
    assert 0.02 * (used[hung] == "stale").sum() > 1.5
    # It comes back, and is asked again.
    assert used[hung][-1] == "ok"
    # GPM's first window takes a tenth of a second.
    begun = gpu.filter(pc.greater(gpu["time"], 0.3))
    for curve in ("power", "clock.core", "temperature.gpu", "hbm.utilisation"):
        assert begun[curve].null_count == 0
    assert (used[~hung] == "ok").all()
    assert fresh["power.age"].drop_null().to_numpy().max() < 1.0


def test_a_sensor_that_hangs_at_the_end_does_not_hold_it_up(record: Record) -> None:
    samples = record(0.8, Fault("slow", "memory", begin=0.5, cost=30.0))
    assert samples.ended == "stopped"
    assert samples.manifest["sensors"]


def test_a_sampler_that_crashes_is_started_again(record: Record) -> None:
    # A crash 0.9 s after each start: the next one has the time to go on.
    samples = record(2.0, Fault("crash", begin=0.9, end=60.0), learn=0.5)
    assert samples.manifest["sampler"]["restarts"]["sampler"] >= 1
    # What the first one had learned is known still.
    fields = next(sensor for sensor in samples.manifest["sensors"] if sensor["name"] == "nvml.fields")
    assert fields["learned_period_s"]["power"] is not None
    assert samples.tables["gpu"]["time"].to_numpy().max() > 1.2
    assert samples.manifest["grid"]["missed"] > 0


def test_without_gpm_the_flags_are_named_as_flags_and_no_bandwidth_is_made_of_them(record: Record) -> None:
    samples = record(0.3, Fault("not_supported", "gpm_supported"))
    tiers = {row["curve"]: row["tier"] for row in samples.tables["curves"].to_pylist() if row["table"] == "gpu"}
    assert tiers["busy"] == tiers["memory.busy"] == "nvml_busy"
    assert tiers["pcie.h2d"] == "nvml"
    assert tiers["hbm.utilisation"] == "none"
    assert samples.tables["gpu"]["hbm.utilisation"].null_count == len(samples.tables["gpu"])
    assert samples.tables["gpu"]["memory.busy"].null_count == 0
    assert "GPM" in reason(samples, "hbm.utilisation")


def test_power_that_is_no_field_comes_by_the_older_call(record: Record) -> None:
    samples = record(0.3, Fault("not_supported", "field.186"))
    source = next(row["source"] for row in samples.tables["curves"].to_pylist() if (row["table"], row["curve"]) == ("gpu", "power"))
    assert source.startswith("nvmlDeviceGetPowerUsage")
    assert samples.tables["gpu"]["power"].null_count == 0


@pytest.mark.parametrize(("hbm", "tier"), [("pm", "pm"), ("auto", "gpm")])
def test_the_best_tier_that_was_asked_for_gives_the_bandwidth(record: Record, hbm: str, tier: str) -> None:
    samples = record(0.5, hbm=hbm)
    tiers = {row["curve"]: row["tier"] for row in samples.tables["curves"].to_pylist() if row["table"] == "gpu"}
    assert tiers["hbm.utilisation"] == tier
    assert tiers["hbm.read"] == ("pm" if hbm == "pm" else "none")
    assert (samples.tables["gpu"]["hbm.read"].null_count == len(samples.tables["gpu"])) == (hbm == "auto")
