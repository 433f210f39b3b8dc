"""How often each sensor is asked: within the budget where that can be had, nobody in vain, and what changes quickly last of all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.measure.doors import open_doors
from membound.measure.lanes import Clock, running
from membound.measure.rates import Rates
from membound.measure.recording import Recording, read
from membound.measure.samples import Samples
from membound.measure.sensors.offer import Offer, offer
from membound.measure.source import Fault, Source
from membound.measure.staff import Staff
from membound.measure.stretch import BUDGET, intervals, stretch

H200 = "h200"
# As an H200 was measured: energy 5 ms a call, GPM 10 ms beside a job (validation/h200).
ENERGY, GPM = 0.005, 0.010
# What next to nothing costs, s of a core.
LITTLE = 1e-6
# Costs of a call, s of a core; wished, enough and longest intervals, s.
SENSORS = st.lists(
    st.tuples(st.floats(0, 0.05), st.sampled_from([0.02, 0.1]), st.sampled_from([1, 2, 10]), st.sampled_from([1, 5, 50])), min_size=1, max_size=20
)


@given(SENSORS, st.floats(0.001, 0.1))
def test_calls_are_asked_less_often_until_they_fit_the_budget(sensors: list[tuple[float, float, int, int]], budget: float) -> None:
    costs = [cost for cost, _, _, _ in sensors]
    wished = [wish for _, wish, _, _ in sensors]
    longest = [wish * most for _, wish, _, most in sensors]
    enough = [min(wish * factor, most) for (_, wish, factor, _), most in zip(sensors, longest, strict=True)]
    kept = stretch(costs, wished, enough, longest, budget)
    assert all(wish * (1 - 1e-9) <= every <= most * (1 + 1e-9) for wish, every, most in zip(wished, kept, longest, strict=True))
    loads = [cost / every for cost, every in zip(costs, kept, strict=True)]
    # Over budget only where each is asked as seldom as may be, or costs so little that it would be in vain.
    spent_on = [load for load, every, most in zip(loads, kept, longest, strict=True) if every < most * (1 - 1e-9)]
    assert sum(loads) <= budget * (1 + 1e-9) or all(load <= budget / len(costs) / 2 * (1 + 1e-9) for load in spent_on)
    # What is stretched beyond what suffices costs as much as any that could wait longer: its cost justifies it.
    stretched = [load for load, every, most in zip(loads, kept, enough, strict=True) if every > most * (1 + 1e-9)]
    assert all(load >= other * (1 - 1e-6) for load in stretched for other in spent_on)
    assert kept == pytest.approx(wished) or sum(cost / wish for cost, wish in zip(costs, wished, strict=True)) > budget


def test_nothing_waits_in_vain_for_what_cannot_wait() -> None:
    # One of 50 ms at every tick passes the budget alone; four of 30 us, which could wait for a second, would not save it.
    assert stretch([0.05, *[3e-5] * 4], [0.02] * 5, [0.02] * 5, [0.02, *[1.0] * 4], BUDGET) == [0.02] * 5


def test_what_loses_nothing_by_waiting_waits_first() -> None:
    # A counter that may wait for a second, and a quick signal: both cost the same at first, and one of them is enough.
    kept = stretch([0.001, 0.0002], [0.1, 0.02], [1.0, 0.02], [4.0, 1.0], 0.015)
    assert kept[1] == 0.02
    assert 0.1 < kept[0] <= 1.0
    assert 0.001 / kept[0] + 0.0002 / kept[1] == pytest.approx(0.015)


def test_a_signal_that_is_new_every_100_ms_is_asked_at_half_of_that_before_the_quick_ones_wait() -> None:
    found = offered()
    cards = [each.sensor.card for each in found.chosen if each.sensor.card.key == 0 and each.sensor.card.table == "gpu"]
    names = [card.name for card in cards]
    # Reading power takes 0.5 ms of a core, reading clocks 0.1: at 50 ms, power leaves enough for clocks at 20.
    costs = [{"nvml.fields": 5e-4, "nvml.clocks": 1e-4}.get(name, LITTLE) for name in names]
    every = dict(zip(names, intervals(cards, costs, 0.02), strict=True))
    assert every["nvml.clocks"] == every["nvml.memory"] == 0.02
    assert every["nvml.fields"] == pytest.approx(0.06)
    # However dear, it is never asked less often than that: power is what the grid is for.
    dear = intervals(cards, [0.05 if name == "nvml.fields" else cost for name, cost in zip(names, costs, strict=True)], 0.02)
    assert dear[names.index("nvml.fields")] == pytest.approx(0.06)


def offered() -> Offer:
    """What the recorded H200s offer, unasked."""
    return offer(open_doors(Source(H200)), None, 0.02, 1.0, "auto")


def documents(rates: Rates, found: Offer) -> dict[tuple[str, int], dict[str, Any]]:
    """What `rates` says of each sensor, by name and key."""
    return {(each.sensor.card.name, each.sensor.card.key): told for each, told in zip(found.chosen, rates.documents(), strict=True)}


def test_what_costs_more_beside_a_job_is_asked_less_often_and_again_when_it_costs_less() -> None:
    found = offered()
    rates, staff = Rates(found.chosen, 0.02, 1.0), Staff()
    rates.set([LITTLE] * len(found.chosen), 0.0)
    staff.hire([each for each in found.chosen if each.sensor.card.table == "gpu"], Clock(0, 20_000_000))
    asked = {station.sensor.card.name: station.every for station in staff.stations}
    for station in staff.stations:
        station.answered, station.lately_ns = 20, 1e9 * (GPM if station.sensor.card.name == "nvml.gpm" else LITTLE)
    rates.review(staff, 10.0)
    told = documents(rates, found)
    assert told["nvml.gpm", 1]["asked_by"] == "budget"
    assert told["nvml.gpm", 1]["changes"] == [{"at_s": 10.0, "asked_every_s": told["nvml.gpm", 1]["asked_every_s"]}]
    assert rates.document()["core_share"] <= BUDGET
    assert all(told["nvml.memory", gpu]["asked_every_s"] == told["nvml.fields", gpu]["asked_every_s"] == 0.02 for gpu in range(2))
    # The lanes know of it.
    assert all((station.every > asked["nvml.gpm"]) == (station.sensor.card.name == "nvml.gpm") for station in staff.stations)
    for station in staff.stations:
        station.lately_ns = 1e9 * LITTLE
    rates.review(staff, 20.0)
    told = documents(rates, found)
    assert told["nvml.gpm", 1]["asked_every_s"] == told["nvml.gpm", 1]["wished_every_s"]
    assert told["nvml.gpm", 1]["asked_by"] == "native period"
    assert [station.every for station in staff.stations] == [asked[station.sensor.card.name] for station in staff.stations]


def test_one_call_that_the_driver_held_up_says_little_of_the_next_ones() -> None:
    mean = 0.0
    for number, cost in enumerate([2.0, 2.0, 65.0, 2.0, 2.0], 1):
        mean = running(mean, cost, number)
    assert mean < 3.0


def test_costs_that_stay_up_are_taken_in() -> None:
    mean = 0.0
    for number in range(1, 41):
        mean = running(mean, 2.0 if number <= 20 else 20.0, number)
    assert 10.0 < mean < 20.0


@pytest.fixture(scope="module")
def dear(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Some seconds of two H200s whose energy and GPM cost as much of a core as was measured."""
    folder = tmp_path_factory.mktemp("dear") / "recording"
    faults = (Fault("busy", "field.83", cost=ENERGY), Fault("busy", "gpm", cost=GPM))
    with Recording(folder, Source(H200, None, faults), learn=0.3):
        time.sleep(4.5)
    return read(folder)


def test_dear_calls_keep_within_the_budget_and_leave_power_its_grid(dear: Samples) -> None:
    sensors = {(each["name"], each["key"]): each for each in dear.manifest["sensors"]}
    calls = dear.manifest["sampler"]["calls"]
    assert calls["budget_share"] == BUDGET
    # As costs waver, it may be passed by a tenth before anything is changed, and they are looked at every two seconds.
    assert calls["core_share"] <= 1.25 * BUDGET
    for gpu in range(2):
        # Half of the 100 ms in which power is formed, on the grid: whatever the others cost, it is never asked less often.
        assert sensors["nvml.fields", gpu]["asked_every_s"] <= 0.06 + 1e-9
        assert sensors["nvml.memory", gpu]["asked_every_s"] <= 0.2 + 1e-9
        assert sensors["nvml.clocks", gpu]["asked_every_s"] <= 0.1 + 1e-9
        assert sensors["nvml.temperature", gpu]["asked_every_s"] <= 1.0
        for name, cost in {"nvml.energy": ENERGY, "nvml.gpm": GPM}.items():
            found = sensors[name, gpu]
            assert found["asked_by"] == "budget"
            assert found["core_us"] * 1e-6 >= 0.9 * cost
            assert found["wished_every_s"] < found["asked_every_s"] <= 4.0
            assert found["core_share"] == pytest.approx(found["core_us"] * 1e-6 / found["asked_every_s"])


def test_a_longer_window_says_so_and_stays_valid(dear: Samples) -> None:
    asked = next(each["asked_every_s"] for each in dear.manifest["sensors"] if each["name"] == "nvml.gpm")
    assert asked >= 0.2
    period = next(row["period"] for row in dear.tables["curves"].to_pylist() if (row["table"], row["curve"]) == ("gpu", "hbm.utilisation"))
    assert period >= 0.1
    fresh = dear.freshness()
    validities = [
        each for each, age in zip(fresh["hbm.utilisation.validity"].to_pylist(), fresh["hbm.utilisation.age"].to_pylist(), strict=True) if age
    ]
    assert set(validities) == {"ok"}
    # Longer than one of GPM's own windows: the value's age tells that it is held.
    assert max(age for age in fresh["hbm.utilisation.age"].to_pylist() if age is not None) > 0.15


def test_a_call_that_waits_takes_no_core_and_is_not_asked_less_often(tmp_path: Path) -> None:
    with Recording(tmp_path / "r", Source(H200, 1, (Fault("slow", "gpm", cost=GPM),)), learn=0.0):
        time.sleep(0.5)
    gpm = next(each for each in read(tmp_path / "r").manifest["sensors"] if each["name"] == "nvml.gpm")
    assert gpm["asked"]["most_us"] >= GPM * 1e6
    assert gpm["core_us"] < GPM * 1e6 / 2
    assert gpm["asked_every_s"] == gpm["wished_every_s"]


def test_the_recorded_h200_is_what_its_probes_say() -> None:
    nvml = open_doors(Source(H200)).nvml()
    assert nvml.ask("count") == 2
    assert nvml.ask("memory_bus", 0) == 6016
    assert nvml.ask("driver") == "580.159.04"
    assert nvml.ask("supported_memory_clocks", 0) == [3201, 2201]
