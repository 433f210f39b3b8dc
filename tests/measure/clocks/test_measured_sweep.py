"""The measured sweep: a point for each clock, or in one line why not; and the plan where the driver must be reloaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from membound.errors import InputError, RecordError
from membound.measure.clocks import plan
from membound.measure.clocks import simulated_board as board
from membound.measure.clocks.consent import Consent
from membound.measure.clocks.refusals import BusyError, ThrottledError
from membound.measure.clocks.session import Point, Timing
from membound.measure.clocks.simulated import SimulatedDriver
from membound.measure.clocks.verifying import Load
from membound.study.sweep import switching
from membound.study.sweep.switching import Failed, Options, Sweep

LOW, HIGH = 1_593_000_000, 2_619_000_000
BOTH = "machine.gpu.hbm.clock=2619MHz, 1593 MHz"


@pytest.fixture
def sweep(driver: SimulatedDriver, load: Load, consent: Consent, state: Path) -> Callable[..., Sweep[Any]]:
    """Sweeps GPU-a over both clocks."""

    def run(measure: Callable[[int], Any], over: Sequence[int] = (HIGH, LOW), **more: Any) -> Sweep[Any]:
        options = Options(folder=state, timing=Timing(0.0, 0.3, 0.01, 0.001), **more)
        return switching.sweep(driver, ["GPU-a"], over, load, measure, consent, options)

    return run


@pytest.fixture
def deferred(machine: Path) -> Path:
    """The machine with GPUs that switch only as the driver loads."""
    board.create(machine, dict.fromkeys(("GPU-a", "GPU-b"), "h100-sxm"))
    return machine


class TestClocks:
    def test_they_are_read_with_their_units(self) -> None:
        assert switching.clocks(BOTH) == (HIGH, LOW)

    @pytest.mark.parametrize("over", ["machine.gpu.hbm.clock=", "machine.gpu.hbm.capacity=80GiB", "machine.gpu.hbm.clock=1593MHz,1593MHz", "1593MHz"])
    def test_what_is_none_is_refused(self, over: str) -> None:
        with pytest.raises(InputError, match="--over"):
            switching.clocks(over)


class TestSweep:
    def test_a_point_for_each_clock(self, sweep: Callable[..., Sweep[Any]], driver: SimulatedDriver) -> None:
        found = sweep(lambda clock: (clock, driver.read("GPU-a").memory))
        assert [point.result for point in found.points if isinstance(point, Point)] == [(HIGH, HIGH), (LOW, LOW)]
        assert (found.refused, found.plan) == (None, None)

    def test_heat_spoils_one_point_and_the_sweep_goes_on(self, sweep: Callable[..., Sweep[Any]], machine: Path, load: Load) -> None:
        def measure(clock: int) -> int:
            board.fault(machine, reasons_under_load=0x40 if clock == LOW else 0)
            with load(["GPU-a"]):
                time.sleep(0.5)
            board.fault(machine, reasons_under_load=0)
            return clock

        first, second = sweep(measure, (LOW, HIGH)).points
        assert isinstance(first, Failed)
        assert "hardware thermal slowdown" in first.reason
        assert isinstance(second, Point)

    def test_an_unsupported_clock_stops_it_before_anything_is_measured(self, sweep: Callable[..., Sweep[Any]]) -> None:
        with pytest.raises(InputError, match="supports 2619 MHz, 1593 MHz"):
            sweep(lambda clock: pytest.fail("measured"), (HIGH, 1_000_000_000))

    @pytest.mark.parametrize(("fault", "words"), [("no_permission", "CAP_SYS_ADMIN"), ("says_not_supported", "not supported")])
    def test_where_it_is_not_allowed_one_line_says_so(self, sweep: Callable[..., Sweep[Any]], machine: Path, fault: str, words: str) -> None:
        board.fault(machine, **{fault: True})
        found = sweep(lambda clock: clock)
        assert [point.memory for point in found.points] == [HIGH]
        assert found.refused is not None
        assert words in found.refused
        assert "\n" not in found.refused

    def test_a_gpu_in_use_is_for_the_user_to_cure(self, sweep: Callable[..., Sweep[Any]], machine: Path) -> None:
        board.change(machine, lambda state: state["gpus"]["GPU-a"].update(pids=[4242]))
        with pytest.raises(BusyError):
            sweep(lambda clock: clock)

    @pytest.mark.parametrize("name", [name for name in board.known() if name != "switchable"])
    def test_recorded_boards_that_switch_never_or_deferred(self, sweep: Callable[..., Sweep[Any]], machine: Path, name: str) -> None:
        board.create(machine, {"GPU-a": name})
        supported = SimulatedDriver(machine).memory_clocks("GPU-a")
        found = sweep(lambda clock: clock, supported)
        # The clock that runs anyway is measured; the others, where there are any, wait for a reload.
        assert [point.memory for point in found.points] == [supported[0]]
        assert (found.plan is not None) == (len(supported) > 1)


class TestPlan:
    @pytest.fixture
    def made(self, deferred: Path, sweep: Callable[..., Sweep[Any]]) -> Path:
        """A plan for the lower clock, with the higher one measured."""
        found = sweep(lambda clock: clock, (LOW, HIGH), payload={"job": "tiny.yaml"})
        assert [point.memory for point in found.points] == [HIGH]
        assert found.refused is not None
        assert "only as it loads" in found.refused
        assert found.plan is not None
        return found.plan

    def test_its_steps_are_words_and_commands_in_order(self, made: Path) -> None:
        steps = "\n".join(plan.steps(plan.read(made), made))
        order = [
            "nvidia-smi -i GPU-a --lock-memory-clocks-deferred=1593", "reboot", f"membound sweep --resume {made}",
            "nvidia-smi -i GPU-a --reset-memory-clocks-deferred", "reboot", f"membound sweep --resume {made}", "2619 MHz is back",
        ]  # fmt: skip
        at = 0
        for words in order:
            at = steps.index(words, at) + 1
        assert plan.read(made).payload == {"job": "tiny.yaml"}

    def resume(self, made: Path, load: Load, measure: Callable[[int], None]) -> plan.Advance:
        return switching.resume(made, load, measure, patience=0.3)

    def test_it_is_walked_to_its_end(self, made: Path, deferred: Path, load: Load) -> None:
        measured: list[int] = []
        assert self.resume(made, load, measured.append).did == "nothing"
        # The person locks and reloads.
        board.change(deferred, lambda state: state["gpus"]["GPU-a"].update(default_memory_mhz=1593))
        assert self.resume(made, load, measured.append).did == "measured"
        # Resumed once more before the lock is taken away.
        early = self.resume(made, load, measured.append)
        assert (early.did, "waits for 2619 MHz, but GPU-a reads 1593 MHz" in early.text) == ("nothing", True)
        board.change(deferred, lambda state: state["gpus"]["GPU-a"].update(default_memory_mhz=2619))
        assert self.resume(made, load, measured.append).did == "verified"
        assert self.resume(made, load, measured.append).text == "this plan is at its end: nothing is left to do"
        assert measured == [LOW]
        assert plan.steps(plan.read(made), made) == ()

    def test_no_step_sets_anything(self, made: Path, deferred: Path, load: Load) -> None:
        before = board.calls(deferred)
        self.test_it_is_walked_to_its_end(made, deferred, load)
        assert board.calls(deferred) == before

    def test_a_spoiled_measurement_leaves_it_where_it_was(self, made: Path, deferred: Path, load: Load) -> None:
        board.change(deferred, lambda state: state["gpus"]["GPU-a"].update(default_memory_mhz=1593))
        board.fault(deferred, reasons_under_load=0x80)

        def measure(clock: int) -> None:
            with load(["GPU-a"]):
                time.sleep(0.5)

        with pytest.raises(ThrottledError, match="hardware power brake"):
            self.resume(made, load, measure)
        assert plan.read(made).done == ()

    @pytest.mark.parametrize("damage", ["", "[]", '{"schema": 9}', '{"schema": 1, "driver": "nvml"}'])
    def test_a_damaged_one_is_refused(self, made: Path, load: Load, damage: str) -> None:
        made.write_text(damage)
        with pytest.raises(RecordError, match="not a readable plan"):
            self.resume(made, load, lambda clock: None)


class TestRehearsal:
    def test_it_tells_of_the_plan(self, deferred: Path, driver: SimulatedDriver, state: Path) -> None:
        steps = switching.rehearse(driver, ["GPU-a"], (HIGH, LOW), state)
        assert [step.split("(")[0] for step in steps if step.startswith("call")] == ["call   nvmlDeviceSetApplicationsClocks"] * 2
        assert any("a plan is written" in step for step in steps)
        assert board.calls(deferred) == []

    def test_it_refuses_what_a_sweep_refuses(self, driver: SimulatedDriver, state: Path) -> None:
        with pytest.raises(InputError, match="supports"):
            switching.rehearse(driver, ["GPU-a"], (1,), state)
