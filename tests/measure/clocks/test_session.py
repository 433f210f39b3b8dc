"""A session: what it does in order, what it refuses, and that it gives clocks back whatever goes wrong."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from membound.errors import InputError, StorageError
from membound.measure.clocks import journal, lock
from membound.measure.clocks import simulated_board as board
from membound.measure.clocks.consent import Consent
from membound.measure.clocks.driver import Gpu
from membound.measure.clocks.refusals import (
    BusyError,
    ClockError,
    DeferredError,
    GpuLostError,
    LeftOverError,
    NoPermissionError,
    NotRestoredError,
    NotSwitchableError,
    NotVerifiedError,
    ThrottledError,
)
from membound.measure.clocks.rehearsal import rehearse
from membound.measure.clocks.session import Session
from membound.measure.clocks.simulated import SimulatedDriver

Sessions = Callable[..., Session]
Clocks = Callable[[], dict[str, Any]]
LOW, HIGH = 1_593_000_000, 2_619_000_000
UNTOUCHED = {"GPU-a": (None, None, None), "GPU-b": (None, None, None)}


def states(folder: Path) -> dict[str, str]:
    """State of each journal in `folder`."""
    entries = [journal.read(folder, uuid) for uuid in journal.uuids(folder)]
    return {entry.uuid: entry.state for entry in entries if entry}


class TestPoint:
    def test_the_body_runs_at_the_clock_and_the_clock_is_given_back(self, session: Sessions, clocks: Clocks, state: Path) -> None:
        with session() as held:
            point = held.point(LOW, clocks)
            assert clocks() == UNTOUCHED
        assert point.result == {"GPU-a": (1593, None, None), "GPU-b": (1593, None, None)}
        assert {reading.memory for reading in point.verified.values()} == {LOW}
        assert point.way == "locked clock"
        assert states(state) == {"GPU-a": "restored", "GPU-b": "restored"}
        assert len(point.restored) == 2
        assert all("reads 2619 MHz" in note for note in point.restored)

    def test_both_clocks_are_on_record(self, session: Sessions) -> None:
        with session() as held:
            point = held.point(LOW, lambda: time.sleep(0.5))
        assert set(point.watched) == set(UNTOUCHED)
        for watched in point.watched.values():
            assert (watched.memory, watched.core) == ((LOW, LOW), (1_980_000_000, 1_980_000_000))
            assert watched.looks >= 2

    def test_the_core_clock_is_held_only_when_asked(self, session: Sessions, clocks: Clocks) -> None:
        with session() as held:
            assert held.point(LOW, clocks).result["GPU-a"] == (1593, None, None)
            assert held.point(LOW, clocks, core=1_410_000_000).result["GPU-a"] == (1593, 1410, None)
            assert clocks() == UNTOUCHED

    def test_the_clock_that_runs_anyway_needs_no_call(self, session: Sessions, machine: Path, state: Path) -> None:
        with session() as held:
            point = held.point(HIGH, lambda: "measured")
        assert (point.result, point.way, board.calls(machine), states(state)) == ("measured", "", [], {})

    def test_the_journal_is_there_before_the_change(self, session: Sessions, state: Path, driver: SimulatedDriver) -> None:
        with session() as held:
            held.point(LOW, lambda: states(state) == {"GPU-a": "changing", "GPU-b": "changing"} or pytest.fail("no journal"))
        entry = journal.read(state, "GPU-a")
        assert entry is not None
        assert (entry.memory, entry.loaded.memory, entry.driver) == (LOW, HIGH, driver.address)

    def test_a_dry_run_lists_the_calls_and_makes_none(self, session: Sessions, machine: Path, driver: SimulatedDriver, state: Path) -> None:
        steps = rehearse(driver, ["GPU-a", "GPU-b"], [HIGH, LOW], state)
        assert board.calls(machine) == []
        assert not state.exists()
        with session() as held:
            held.point(HIGH, lambda: None)
            held.point(LOW, lambda: None)
        names = {"lock_memory": "nvmlDeviceSetMemoryLockedClocks", "reset_memory": "nvmlDeviceResetMemoryLockedClocks"}
        made = [(names[call["name"]], call["uuid"]) for call in board.calls(machine)]
        listed = [step.removeprefix("call").strip() for step in steps if step.startswith("call")]
        assert [(text.partition("(")[0], text.partition("(")[2].rstrip(")").split(",")[0]) for text in listed] == made
        assert listed[0] == "nvmlDeviceSetMemoryLockedClocks(GPU-a, 1593 MHz, 1593 MHz)"


class TestRefusals:
    def test_an_unsupported_clock_is_refused_with_the_list(self, session: Sessions, machine: Path) -> None:
        with session() as held, pytest.raises(InputError, match=r"2000 MHz.*GPU-a supports 2619 MHz, 1593 MHz"):
            held.point(2_000_000_000, lambda: None)
        assert board.calls(machine) == []

    def test_an_unsupported_core_clock_too(self, session: Sessions, machine: Path) -> None:
        with session() as held, pytest.raises(InputError, match=r"1411 MHz.*345 MHz to 1980 MHz"):
            held.point(LOW, lambda: None, core=1_411_000_000)
        assert board.calls(machine) == []

    def test_a_gpu_in_use_is_refused(self, session: Sessions, machine: Path) -> None:
        board.change(machine, lambda state: state["gpus"]["GPU-b"].update(pids=[4242]))
        with pytest.raises(BusyError, match="GPU-b: in use by process 4242"), session():
            pytest.fail("entered")

    def test_so_is_one_that_comes_into_use(self, session: Sessions, machine: Path) -> None:
        with session() as held:
            board.change(machine, lambda state: state["gpus"]["GPU-b"].update(pids=[4242]))
            with pytest.raises(BusyError):
                held.point(LOW, lambda: None)
        assert board.calls(machine) == []

    @pytest.mark.parametrize("uuids", [("GPU-z",), ("GPU-a", "GPU-z")])
    def test_an_unknown_gpu_is_refused(self, session: Sessions, uuids: tuple[str, ...]) -> None:
        with pytest.raises(NotSwitchableError, match=r"GPU-z: no such GPU here \(there are GPU-a, GPU-b\)"), session(*uuids):
            pytest.fail("entered")

    def test_a_gpu_named_twice_is_refused(self, session: Sessions) -> None:
        with pytest.raises(InputError, match="each GPU once"), session("GPU-a", "GPU-a"):
            pytest.fail("entered")

    def test_a_driver_that_never_switches(self, session: Sessions, machine: Path) -> None:
        board.change(machine, lambda state: state["gpus"]["GPU-a"].update(switch_type=0))
        with session("GPU-a") as held, pytest.raises(NotSwitchableError, match="a sweep can be predicted"):
            held.point(LOW, lambda: None)
        assert board.calls(machine) == []

    def test_gpus_that_are_unlike(self, session: Sessions, machine: Path) -> None:
        board.change(machine, lambda state: state["gpus"]["GPU-a"].update(switch_type=1))
        with session() as held, pytest.raises(NotSwitchableError, match="sweep over GPUs that are alike"):
            held.point(LOW, lambda: None)
        assert board.calls(machine) == []

    def test_a_gpu_that_is_split(self, session: Sessions, driver: SimulatedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(SimulatedDriver, "gpus", lambda self: (Gpu("GPU-a", "split", split=True),))
        with pytest.raises(NotSwitchableError, match="MIG"), session("GPU-a"):
            pytest.fail("entered")

    def test_a_load_that_does_not_arrive(self, session: Sessions, machine: Path) -> None:
        with pytest.raises(NotVerifiedError, match="GPU idle"), session(load=lambda uuids: nullcontext()):
            pytest.fail("entered")
        assert board.calls(machine) == []

    def test_a_full_disk_changes_nothing(self, session: Sessions, machine: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with session() as held:
            monkeypatch.setattr(os, "fsync", full)
            with pytest.raises(StorageError, match=r"No space left on device.*MEMBOUND_STATE"):
                held.point(LOW, lambda: pytest.fail("measured"))
            monkeypatch.undo()
        assert board.calls(machine) == []
        assert states(state) == {}
        assert sorted(path.name for path in state.iterdir()) == ["GPU-a.lock", "GPU-b.lock"]

    def test_without_its_watchdog_nothing_is_changed(self, session: Sessions, machine: Path) -> None:
        with session() as held:
            os.kill(held.watchdog, signal.SIGKILL)
            os.waitid(os.P_PID, held.watchdog, os.WEXITED | os.WNOWAIT)
            with pytest.raises(ClockError, match="watchdog"):
                held.point(LOW, lambda: None)
        assert board.calls(machine) == []


class TestTwoAtOnce:
    def test_the_second_session_on_a_gpu_is_refused(self, session: Sessions) -> None:
        with session("GPU-a"), pytest.raises(BusyError, match="GPU-a: another session"), session("GPU-a", "GPU-b"):
            pytest.fail("entered")

    def test_sessions_on_different_gpus_are_not(self, session: Sessions, clocks: Clocks) -> None:
        with session("GPU-a") as one, session("GPU-b") as other:
            both = one.point(LOW, lambda: other.point(LOW, clocks).result).result
        assert both == {"GPU-a": (1593, None, None), "GPU-b": (1593, None, None)}
        assert clocks() == UNTOUCHED

    def test_two_processes(self, machine: Path, state: Path, clocks: Clocks) -> None:
        life = [sys.executable, str(Path(__file__).with_name("life.py")), str(machine), str(state), "-1"]
        with subprocess.Popen(life, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
            while clocks() == UNTOUCHED:
                assert first.poll() is None
                time.sleep(0.01)
            second = subprocess.run(life, stdin=subprocess.DEVNULL, capture_output=True, text=True)
            out, err = first.communicate()
        assert (first.returncode, out, err) == (0, "lived\n", "")
        assert second.returncode == 1
        assert "another session" in second.stderr
        assert clocks() == UNTOUCHED

    def test_the_file_of_a_dead_session_locks_nothing(self, session: Sessions, state: Path) -> None:
        state.mkdir()
        (state / "GPU-a.lock").write_text("999999999")
        with session("GPU-a") as held:
            assert held.point(LOW, lambda: "measured").result == "measured"

    def test_a_journal_left_over_is_not_written_over(self, session: Sessions, state: Path, machine: Path) -> None:
        with session("GPU-a") as held:
            held.point(LOW, lambda: None)
        entry = journal.read(state, "GPU-a")
        assert entry is not None
        journal.write(state, dataclasses.replace(entry, state="changing"))
        before = board.calls(machine)
        with pytest.raises(LeftOverError, match="membound restore"), session("GPU-a"):
            pytest.fail("entered")
        assert board.calls(machine) == before


class TestFaults:
    """Whatever the driver does, the point says what, and the clocks are given back."""

    @pytest.mark.parametrize(
        ("fault", "error", "words"),
        [
            ({"no_permission": True}, NoPermissionError, r"nvmlDeviceSetMemoryLockedClocks.*CAP_SYS_ADMIN"),
            ({"says_not_supported": True}, NotSwitchableError, "not supported"),
            ({"deaf": True}, NotVerifiedError, "set to 1593 MHz .* reads 2619 MHz under load"),
            ({"offset_mhz": 200}, NotVerifiedError, "set to 1593 MHz .* reads 1793 MHz under load"),
        ],
    )
    def test_a_switch_that_is_none(
        self, session: Sessions, machine: Path, state: Path, clocks: Clocks, fault: dict[str, Any], error: type[ClockError], words: str
    ) -> None:
        board.fault(machine, **fault)
        with session() as held, pytest.raises(error, match=words):
            held.point(LOW, lambda: pytest.fail("measured"))
        assert clocks() == UNTOUCHED
        assert set(states(state).values()) == {"restored"}

    @pytest.mark.parametrize(
        ("bits", "name"),
        [(0x8, "hardware slowdown"), (0x20, "software thermal slowdown"), (0x40, "hardware thermal slowdown"), (0x80, "hardware power brake")],
    )
    def test_heat_and_the_power_brake_fail_the_point_by_name(
        self, session: Sessions, machine: Path, load: Any, clocks: Clocks, bits: int, name: str
    ) -> None:
        def body() -> None:
            board.fault(machine, reasons_under_load=bits)
            with load(["GPU-b"]):
                time.sleep(0.5)

        with session() as held, pytest.raises(ThrottledError, match=f"GPU-b: held back .* {name} in"):
            held.point(LOW, body)
        assert clocks() == UNTOUCHED

    def test_the_power_cap_does_not(self, session: Sessions, machine: Path, load: Any) -> None:
        board.fault(machine, reasons_under_load=0x4)

        def body() -> None:
            with load(["GPU-a"]):
                time.sleep(0.5)

        with session() as held:
            assert held.point(LOW, body).watched["GPU-a"].reasons["software power cap"] > 0

    def test_a_clock_that_someone_changes_meanwhile(self, session: Sessions, machine: Path, load: Any, clocks: Clocks) -> None:
        def body() -> None:
            board.change(machine, lambda state: state["gpus"]["GPU-a"].update(locked_memory_mhz=None))
            with load(["GPU-a"]):
                time.sleep(0.5)

        with session() as held, pytest.raises(NotVerifiedError, match="GPU-a: set to 1593 MHz, it ran at 2619 MHz"):
            held.point(LOW, body)
        assert clocks() == UNTOUCHED

    @pytest.mark.parametrize("raised", [ValueError("body"), KeyboardInterrupt(), SystemExit(3)])
    def test_a_body_that_raises(self, session: Sessions, clocks: Clocks, state: Path, raised: BaseException) -> None:
        def body() -> None:
            raise raised

        with pytest.raises(type(raised)), session() as held:
            held.point(LOW, body)
        assert clocks() == UNTOUCHED
        assert set(states(state).values()) == {"restored"}

    def test_a_gpu_that_is_lost_keeps_its_journal(self, session: Sessions, machine: Path, state: Path) -> None:
        with pytest.raises(GpuLostError, match="reboot, then `membound restore`"), session("GPU-a") as held:
            held.point(LOW, lambda: board.fault(machine, lost=True))
        assert states(state) == {"GPU-a": "changing"}

    def test_a_reset_that_does_nothing_keeps_the_journal(self, session: Sessions, machine: Path, state: Path) -> None:
        board.fault(machine, deaf_to_reset=True)
        with pytest.raises(NotRestoredError, match="reads 1593 MHz"), session("GPU-a") as held:
            held.point(LOW, lambda: None)
        assert states(state) == {"GPU-a": "changing"}

    def test_a_journal_that_is_damaged_meanwhile(self, session: Sessions, state: Path, clocks: Clocks) -> None:
        with session() as held:
            held.point(LOW, lambda: journal.path(state, "GPU-a").write_text("{"))
        assert clocks() == UNTOUCHED
        assert set(states(state).values()) == {"restored"}

    def test_a_disk_that_fills_meanwhile(self, session: Sessions, state: Path, clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        with session() as held:
            held.point(LOW, lambda: monkeypatch.setattr(os, "fsync", full))
        assert clocks() == UNTOUCHED
        assert states(state) == {}


class TestDeferred:
    """The driver switches only as it loads: the applications clock is tried, and the read-back decides."""

    @pytest.fixture(autouse=True)
    def _deferred(self, machine: Path) -> None:
        board.create(machine, {"GPU-a": "h100-sxm", "GPU-b": "h100-sxm"})

    def test_where_applications_clocks_do_nothing_a_reload_is_left(self, session: Sessions, machine: Path, clocks: Clocks) -> None:
        with session() as held, pytest.raises(DeferredError, match=r"only as it loads .*reads 2619 MHz"):
            held.point(LOW, lambda: pytest.fail("measured"))
        assert clocks() == {uuid: (None, None, [2619, 1980]) for uuid in ("GPU-a", "GPU-b")}

    def test_where_they_work_they_are_used_and_set_back(self, session: Sessions, machine: Path, clocks: Clocks) -> None:
        for uuid in ("GPU-a", "GPU-b"):
            board.change(machine, lambda state, uuid=uuid: state["gpus"][uuid].update(applications_obeyed=True, applications_mhz=[2619, 1755]))
        with session() as held:
            point = held.point(LOW, clocks)
        assert (point.way, point.result["GPU-a"]) == ("applications clock", (None, None, [1593, 1755]))
        assert clocks() == {uuid: (None, None, [2619, 1755]) for uuid in ("GPU-a", "GPU-b")}

    def test_an_unknown_type_tries_both(self, session: Sessions, machine: Path) -> None:
        board.change(machine, lambda state: state["gpus"]["GPU-a"].update(switch_type=None, applications_obeyed=True))
        board.fault(machine, deaf=True)
        with session("GPU-a") as held, pytest.raises(NotVerifiedError):
            held.point(LOW, lambda: None)
        assert [call["name"] for call in board.calls(machine)] == ["lock_memory", "reset_memory", "set_applications", "set_applications"]


def test_locks_are_free_once_a_session_ended(session: Sessions, state: Path) -> None:
    with session():
        pass
    with lock.held(state, ["GPU-a", "GPU-b"]) as descriptors:
        assert len(descriptors) == 2


@pytest.mark.parametrize(("measure", "over"), [(False, "machine.gpu.hbm.clock=1593MHz"), (True, "recipe.micro_batch=1,2")])
def test_consent_is_the_option_itself(measure: bool, over: str) -> None:
    with pytest.raises(InputError):
        Consent.from_options(measure, over)
