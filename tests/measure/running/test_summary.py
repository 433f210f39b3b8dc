"""From marks and curves of a GPU to values: made-up evidence whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from membound.measure import allocator_curves, marks
from membound.measure.assemble import summarise
from membound.measure.evidence import Evidence
from membound.measure.outcome import Outcome
from membound.measure.plan import Options, Plan
from membound.measure.summary_steps import losses
from membound.run import quantities
from membound.run.schema import Fits, Missing, Value
from membound.run.series import CURVE_TABLE
from membound.spec import catalogue

GIB = 2**30
UUIDS = ("GPU-aa", "GPU-bb")
# Two GPUs, 20 ms, 10 s: the job begins at 1 s and makes ten steps of 0.8 s from 2 s on, of which the first three are warm-up.
TIMES = np.arange(0, 10.001, 0.02)
STEP = 0.8


def gpu_table(**curves: Any) -> pa.Table:
    """The table `gpu` of two GPUs that show the same, `curves` given over `TIMES`."""
    columns = {name: np.tile(np.broadcast_to(values, TIMES.shape), 2) for name, values in curves.items()}
    numbers = np.repeat(np.arange(2, dtype=np.int32), TIMES.size)
    return pa.table({"time": np.tile(TIMES, 2), "gpu": numbers, **{name: pa.array(values, from_pandas=True) for name, values in columns.items()}})


def lines_of(rank: int, slower: float = 0.0) -> list[dict[str, Any]]:
    """Marks of one rank whose steps take `slower` s more than `STEP`."""
    found: list[dict[str, Any]] = [
        {"what": "rank", "t": 0.9, "rank": rank, "uuid": UUIDS[rank].removeprefix("GPU-")},
        {"what": "context", "t": 1.0, "reserved": 2 * 2**20, "used": 1.5 * GIB + 2 * 2**20},
        {"what": "ready", "t": 1.2, "rss": 2 * GIB},
    ]
    for step in range(10):
        start = 2.0 + step * STEP
        spans = {"step": (start, start + STEP - 0.1 + slower), "forward": (start, start + 0.2), "backward": (start + 0.2, start + 0.6)}
        for at, (name, (begin, end)) in enumerate(spans.items()):
            number = step * 10 + at
            kind = "step" if name == "step" else "phase"
            found.append({"what": "begin", "t": begin, "id": number, "kind": kind, "name": name, "step": step, "micro": 0})
            found.append({"what": "end", "t": end, "id": number})
        found.append({"what": "memory", "t": start + 0.3, "allocated": 30 * GIB + step, "reserved": 40 * GIB})
        found.append({"what": "step", "t": start + STEP, "step": step, "loss": 5.0 - step, "rows": 4, "tokens": 2048, "useful": 1024})
    found.append(
        {"what": "peaks", "t": 10.0, "rss_peak": 10 * GIB, "pinned": 3 * GIB, "allocated": 50 * GIB, "active": 51 * GIB, "reserved": 60 * GIB}
    )
    found[-1] |= {"used": 63.25 * GIB, "reserved_end": 60 * GIB}
    return [{**line, "t": int(line["t"] * 1e9)} for line in found]


def evidence(
    table: pa.Table, origins: dict[str, str], lines: dict[int, list[dict[str, Any]]] | None = None, period: float = 0.02, **changes: Any
) -> Evidence:
    """Evidence of a job on two H100s, whose sensors have something new every `period` s."""
    machine = catalogue.machine("hgx-h100").with_gpus(2).model_dump(mode="json")
    plan = Plan({"gpus": 2, "recipe": {}}, machine, {}, "cuda", Options(), {}, 0, {"host": {"capacity": 64 * GIB}})
    rows = [{"table": "gpu", "curve": curve, "tier": tier, "source": "a sensor", "period": period, "missing": 0} for curve, tier in origins.items()]
    host = pa.table({"time": [0.0, 1.0, 2.0, 8.0], "node": [0] * 4, "memory.used": [8.0 * GIB, 9.0 * GIB, 20.0 * GIB, 30.0 * GIB]})
    said = lines or {rank: lines_of(rank, slower=rank / 20) for rank in range(2)}
    cards = [{"gpu": at, "uuid": uuid, "memory_total_b": 80.0 * GIB} for at, uuid in enumerate(UUIDS)]
    tables = {"gpu": table, "host": host, "curves": pa.Table.from_pylist(rows, schema=CURVE_TABLE)}
    outcome = Outcome("done", Fits(True, True), "done", 0)
    known = {"plan": plan, "outcome": outcome, "tables": tables, "manifest": {"hardware": {"gpus": cards}}, "unsampled": "", "epoch_ns": 0}
    return Evidence(lines=said, spans=marks.table(said, 0), **{**known, **changes})


def number(values: dict[str, Value | Missing], name: str) -> float:
    """The value of `name`, which must be there."""
    value = values[name]
    assert isinstance(value, Value), value
    return value.value


def used() -> Any:
    """Memory used as a slow driver shows it, each second: 1 GiB before the job, whose peak it sees from 3 s on."""
    return np.select([TIMES < 2, TIMES < 3], [1 * GIB, 30 * GIB], 63 * GIB).astype(float)


def test_a_step_takes_as_long_as_its_slowest_rank() -> None:
    values = summarise(evidence(gpu_table(power=1.0), {}))
    assert number(values, "step.time") == pytest.approx(0.75)
    assert number(values, "step.time.forward") == pytest.approx(0.2)
    assert number(values, "step.time.backward") == pytest.approx(0.4)


def test_rates_are_per_gpu_and_over_all_of_the_counted_time() -> None:
    values = summarise(evidence(gpu_table(power=1.0), {}))
    assert number(values, "tokens.rate") == pytest.approx(2048 / 0.75)
    assert number(values, "tokens.rate.useful") == pytest.approx(1024 / 0.75)
    assert number(values, "samples.rate") == pytest.approx(2 * 4 / 0.75)


def test_means_leave_the_warm_up_out_and_peaks_do_not() -> None:
    power = np.where(TIMES < 4.3, 700.0, 400.0)
    values = summarise(evidence(gpu_table(power=power), {"power": "nvml"}))
    assert number(values, "gpu.power.mean") == pytest.approx(400.0)
    assert number(values, "gpu.power.peak") == 700.0
    value = values["gpu.power.mean"]
    assert isinstance(value, Value)
    assert value.basis == "nvml: a sensor, new every 20 ms, mean over 7 steps"


def test_energy_is_taken_from_the_counter() -> None:
    values = summarise(evidence(gpu_table(power=100.0, energy=1e6 + 500.0 * TIMES), {"energy": "nvml"}))
    # From the first counted step's start to the last one's end: seven steps of 0.8 s, the last 0.05 s short on the slower rank.
    assert number(values, "gpu.energy.step") == pytest.approx(500.0 * (7 * STEP - 0.05) / 7, rel=1e-6)


def test_a_counter_that_is_read_once_a_second_counts_between_its_readings() -> None:
    # Rows repeat a reading for up to a second: a difference of rows would be off by 500 J at either end.
    seldom = gpu_table(power=100.0, energy=1e6 + 500.0 * np.floor(TIMES))
    values = summarise(evidence(seldom, {"energy": "nvml"}))
    assert number(values, "gpu.energy.step") == pytest.approx(500.0 * (7 * STEP - 0.05) / 7, rel=1e-6)


def test_a_counter_that_is_stuck_leaves_energy_to_power() -> None:
    values = summarise(evidence(gpu_table(power=100.0, energy=1e6), {"power": "nvml", "energy": "nvml"}))
    value = values["gpu.energy.step"]
    assert isinstance(value, Value)
    assert value.value == pytest.approx(100.0 * (7 * STEP - 0.05) / 7)
    assert "mean times the time of a step" in value.basis


def test_counted_bytes_make_traffic_and_bandwidth() -> None:
    read, write = np.full(TIMES.shape, 1.5e12), np.full(TIMES.shape, 0.5e12)
    read[250] = 2.5e12
    values = summarise(evidence(gpu_table(**{"hbm.read": read, "hbm.write": write}), {"hbm.read": "pm", "hbm.write": "pm"}))
    assert number(values, "hbm.bandwidth.mean") == pytest.approx(2e12, rel=0.01)
    assert number(values, "hbm.bandwidth.peak") == pytest.approx(3e12)
    assert number(values, "hbm.traffic.write") == pytest.approx(0.5e12 * (7 * STEP - 0.05) / 7)
    value = values["hbm.traffic.read"]
    assert isinstance(value, Value)
    assert value.basis.startswith("pm: ")


def test_a_share_makes_bandwidth_but_no_traffic() -> None:
    table = gpu_table(**{"hbm.utilisation": 0.5, "clock.memory": 2.619e9})
    values = summarise(evidence(table, {"hbm.utilisation": "gpm"}))
    assert number(values, "hbm.utilisation.mean") == 0.5
    assert number(values, "hbm.bandwidth.mean") == pytest.approx(0.5 * 2.619e9 * 2 * 5120 / 8)
    assert isinstance(values["hbm.traffic.read"], Missing)


def test_the_driver_knows_its_memory_bus_better_than_the_catalogue() -> None:
    table = gpu_table(**{"hbm.utilisation": 0.5, "clock.memory": 3.201e9})
    cards = [{"gpu": at, "uuid": uuid, "memory_bus_bit": 6016} for at, uuid in enumerate(UUIDS)]
    values = summarise(evidence(table, {"hbm.utilisation": "gpm"}, manifest={"hardware": {"gpus": cards}}))
    # The machine of the plan is of H100s, of 5120 bit.
    assert number(values, "hbm.bandwidth.mean") == pytest.approx(0.5 * 3.201e9 * 2 * 6016 / 8)


def busy_since_last(*read_at: float) -> Any:
    """What a sensor that is read at these moments says, each time the mean since the time before, where a GPU is busy from 4.3 s on."""
    ends, begins = np.array(read_at), np.array([0.0, *read_at[:-1]])
    means = 0.8 * np.clip(ends - np.maximum(begins, 4.3), 0, None) / (ends - begins)
    last = np.searchsorted(ends, TIMES + 1e-9) - 1
    return np.where(last < 0, np.nan, means[last])


@pytest.mark.parametrize("read_at", [(0.5, 2.5, 4.5, 6.5, 8.5), (1.5, 5.5, 9.5), (2.0, 4.0, 5.0, 7.0, 9.0)])
def test_a_mean_that_began_before_the_counted_steps_is_not_counted(read_at: tuple[float, ...]) -> None:
    values = summarise(evidence(gpu_table(busy=busy_since_last(*read_at)), {"busy": "gpm"}, period=read_at[1] - read_at[0]))
    assert number(values, "gpu.busy") == pytest.approx(0.8)


def test_where_no_mean_is_of_the_counted_steps_alone_there_is_no_value() -> None:
    values = summarise(evidence(gpu_table(busy=busy_since_last(1.0, 9.0)), {"busy": "gpm"}, period=8.0))
    value = values["gpu.busy"]
    assert isinstance(value, Missing)
    assert value.reason == "a sensor, new every 8.0 s: none is of the 5.5 s of the counted steps alone (cure: more --steps)"


def test_a_value_that_was_not_read_again_is_not_counted_again() -> None:
    # Read twice a second at first, which is what the curve says, and not between 2.5 and 9 s: the mean until 2.5 s stands there all the while.
    table = gpu_table(busy=busy_since_last(0.5, 1.0, 1.5, 2.0, 2.5, 9.0))
    sensor = {"table": "gpu", "key": 0, "curves": ["busy"], "asked_every_s": 0.5, "changes": [{"at_s": 2.5, "asked_every_s": 6.5}]}
    manifest = {"sensors": [sensor, {**sensor, "key": 1}]}
    assert isinstance(summarise(evidence(table, {"busy": "gpm"}, period=0.5, manifest=manifest))["gpu.busy"], Missing)


def test_a_value_that_stays_for_longer_than_any_wait_was_read_again() -> None:
    assert number(summarise(evidence(gpu_table(busy=1.0), {"busy": "gpm"}, period=0.5)), "gpu.busy") == 1.0


def test_a_counter_read_too_seldom_leaves_energy_to_power() -> None:
    # Idle until the first counted step, and read at 1, 5 and 9 s: evenly spread, half of what was used from 5 s on would be put before.
    counter = 1e6 + 500.0 * np.maximum(TIMES - 4.4, 0)
    seldom = counter[np.searchsorted(TIMES, 4 * np.floor((TIMES - 1) / 4) + 1 - 1e-9).clip(0, TIMES.size - 1)]
    values = summarise(evidence(gpu_table(power=500.0, energy=seldom), {"power": "nvml", "energy": "nvml"}, period=4.0))
    assert number(values, "gpu.energy.step") == pytest.approx(500.0 * (7 * STEP - 0.05) / 7)


def test_memory_as_torch_and_the_driver_see_it() -> None:
    values = summarise(evidence(gpu_table(**{"memory.used": used()}), {"memory.used": "nvml"}))
    assert [number(values, f"gpu.memory.{name}.peak") / GIB for name in ("allocated", "active", "reserved", "used")] == [50, 51, 60, 63.25]
    assert number(values, "gpu.memory.capacity") == 80 * GIB
    assert number(values, "hbm.capacity.utilisation") == 63.25 / 80
    assert number(values, "gpu.memory.context") == pytest.approx(0.5 * GIB)
    assert number(values, "gpu.memory.libraries") == pytest.approx((63.25 - 1 - 60 - 0.5) * GIB)


def test_memory_of_the_host() -> None:
    values = summarise(evidence(gpu_table(power=1.0), {}))
    assert number(values, "host.memory.used.peak") == 30 * GIB
    assert number(values, "host.memory.base") == 9 * GIB
    assert number(values, "host.memory.pinned.peak") == 2 * 3 * GIB
    assert number(values, "host.memory.pageable.peak") == 2 * (10 - 2 - 3) * GIB


def test_of_a_killed_rank_the_last_samples_are_told_as_such() -> None:
    lines = {0: [line for line in lines_of(0) if line["what"] != "peaks"]}
    value = summarise(evidence(gpu_table(power=1.0), {}, lines))["gpu.memory.allocated.peak"]
    assert isinstance(value, Value)
    assert (value.value, value.basis) == (30 * GIB + 9, "most that was sampled before the process was killed: it may have been more")


def test_values_that_no_sensor_gave_are_missing_with_its_reason() -> None:
    table = gpu_table(power=np.full(TIMES.shape, np.nan))
    row = {"table": "gpu", "curve": "power", "tier": "none", "source": "no sensor", "missing": 9, "reason": "permission denied"}
    found = evidence(table, {})
    tables = {**found.tables, "curves": pa.Table.from_pylist([row], schema=CURVE_TABLE)}
    values = summarise(evidence(table, {}, tables=tables))
    assert values["gpu.power.mean"] == values["gpu.power.peak"] == Missing("permission denied")


def test_values_are_in_the_words_of_the_registry() -> None:
    table = gpu_table(**{"power": 1.0, "energy": TIMES, "memory.used": used(), "hbm.read": 1e12, "hbm.write": 1e12, "busy": 0.9, "pcie.h2d": 1e9})
    values = summarise(evidence(table, {"power": "nvml"}))
    assert list(values) == list(quantities.QUANTITIES)
    quantities.validate(values)


def test_the_allocators_word_stands_beside_the_drivers() -> None:
    found = evidence(gpu_table(**{"memory.used": used()}), {})
    table = allocator_curves.beside(found, found.tables["gpu"])
    rows = [row for row in table.to_pylist() if row["gpu"] == 1]
    by_time = {round(row["time"], 2): row["memory.allocated"] for row in rows}
    assert by_time[2.0] is None  # its rank had said nothing yet
    assert by_time[2.32] == 30 * GIB
    assert by_time[3.12] == 30 * GIB + 1


def test_a_loss_that_diverged_is_no_number() -> None:
    lines = lines_of(0)
    for line, loss in zip([line for line in lines if line["what"] == "step"], (float("nan"), float("inf")), strict=False):
        line["loss"] = loss
    assert losses(evidence(gpu_table(power=1.0), {}, {0: lines}))[:3] == [None, None, 3.0]
