"""`membound restore`, and the journals that it goes by."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from membound.errors import RecordError
from membound.measure.clocks import calls, journal, lock, restoring
from membound.measure.clocks import simulated_board as board
from membound.measure.clocks import state as state_folder
from membound.measure.clocks.driver import Reading
from membound.measure.clocks.journal import Entry
from membound.measure.clocks.plan import Plan
from membound.measure.clocks.plan import write as write_plan
from membound.measure.clocks.refusals import NotRestoredError
from membound.measure.clocks.simulated import SimulatedDriver
from tests.commands import membound

LOW, HIGH, CORE = 1_593_000_000, 2_619_000_000, 1_980_000_000


@pytest.fixture
def left(machine: Path, state: Path, driver: SimulatedDriver) -> Entry:
    """The journal of a change that nobody undid, and the change."""
    board.change(machine, lambda now: now["gpus"]["GPU-a"].update(locked_memory_mhz=1593))
    way = calls.locked("GPU-a", LOW)
    before = Reading(HIGH, CORE, 1), Reading(HIGH, CORE, 0)
    entry = Entry("GPU-a", driver.address, "--measure", state_folder.boot(), 0.0, *before, LOW, 0.01, way.do, way.undo)
    journal.write(state, entry)
    return entry


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`membound restore` as a process of its own."""
    return membound("restore", *arguments)


class TestCommand:
    def test_nothing_to_do_is_an_answer(self, state: Path) -> None:
        done = command()
        assert (done.returncode, done.stdout, done.stderr) == (0, f"nothing to do: no journal in {state}\n", "")
        assert not state.exists()

    def test_it_gives_back_and_says_so(self, left: Entry, clocks: Callable[[], dict[str, Any]]) -> None:
        done = command()
        assert (done.returncode, done.stdout) == (0, "GPU-a: 1593 MHz given back by membound restore, reads 2619 MHz\n")
        assert clocks()["GPU-a"] == (None, None, None)
        assert command().stdout.startswith("GPU-a: nothing to do: 1593 MHz given back by membound restore")

    def test_json(self, left: Entry, state: Path) -> None:
        document = json.loads(command("--json").stdout)
        assert document["folder"] == str(state)
        assert document["gpus"]["GPU-a"]["restored"] is True

    def test_another_folder(self, left: Entry, state: Path, tmp_path: Path) -> None:
        assert command("--state", str(tmp_path / "else")).stdout.startswith("nothing to do")
        assert "given back" in command("--state", str(state)).stdout

    @pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"schema": 1}', '{"schema": 99}', "\x00"])
    def test_a_damaged_journal_is_one_line_with_its_cure(self, left: Entry, state: Path, machine: Path, damage: str) -> None:
        journal.path(state, "GPU-a").write_text(damage)
        done = command()
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "nvidia-smi -i GPU-a --reset-memory-clocks" in done.stderr
        assert journal.path(state, "GPU-a").read_text() == damage
        assert board.calls(machine) == []

    def test_what_cannot_be_given_back_keeps_its_journal(self, left: Entry, machine: Path, state: Path) -> None:
        board.fault(machine, no_permission=True)
        done = command()
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "Insufficient Permissions" in done.stderr
        assert journal.read(state, "GPU-a").state == "changing"  # type: ignore[union-attr]

    def test_a_lost_gpu(self, left: Entry, machine: Path) -> None:
        board.fault(machine, lost=True)
        assert "reboot, then `membound restore`" in command().stderr

    def test_a_running_session_is_let_be(self, left: Entry, state: Path, machine: Path) -> None:
        with lock.held(state, ["GPU-a"]):
            done = command()
        assert done.returncode == 1
        assert "another session" in done.stderr
        assert board.calls(machine) == []

    def test_it_names_plans_that_are_not_at_their_end(self, state: Path) -> None:
        open_plan = Plan("nvml", ("GPU-a",), HIGH, (LOW,))
        write_plan(state / "plan-1.json", open_plan)
        write_plan(state / "plan-2.json", dataclasses.replace(open_plan, done=(LOW,), ended=True))
        assert (
            command().stdout
            == f"{state}/plan-1.json: a plan that is not at its end: `membound sweep --resume {state}/plan-1.json` says its next step\n"
        )


class TestReboot:
    def test_after_a_reboot_nothing_is_set(self, left: Entry, state: Path, machine: Path) -> None:
        journal.write(state, dataclasses.replace(left, boot="an earlier one"))
        board.reboot(machine)
        assert "which gave 2619 MHz back: nothing was set" in restoring.restore(state, "GPU-a", "me").text
        assert board.calls(machine) == []
        assert journal.read(state, "GPU-a").state == "restored"  # type: ignore[union-attr]

    def test_unless_the_change_survived_it(self, left: Entry, state: Path, machine: Path) -> None:
        journal.write(state, dataclasses.replace(left, boot="an earlier one"))
        assert "given back by me" in restoring.restore(state, "GPU-a", "me").text
        assert [call["name"] for call in board.calls(machine)] == ["reset_memory"]


class TestReadBack:
    def test_a_lock_at_the_clock_of_before_cannot_be_read_so_the_answer_counts(self, left: Entry, state: Path, machine: Path) -> None:
        journal.write(state, dataclasses.replace(left, memory=HIGH))
        board.change(machine, lambda now: now["gpus"]["GPU-a"].update(locked_memory_mhz=2619))
        board.fault(machine, no_permission=True)
        with pytest.raises(NotRestoredError, match="Insufficient Permissions"):
            restoring.restore(state, "GPU-a", "me")

    def test_a_reset_that_is_refused_where_nothing_was_changed(self, left: Entry, state: Path, machine: Path) -> None:
        board.change(machine, lambda now: now["gpus"]["GPU-a"].update(locked_memory_mhz=None))
        board.fault(machine, no_permission=True)
        assert "refused" in restoring.restore(state, "GPU-a", "me").text

    def test_a_core_clock_that_stays_held(self, left: Entry, state: Path, machine: Path) -> None:
        way = calls.holding_core(calls.locked("GPU-a", LOW), "GPU-a", 1_410_000_000)
        journal.write(state, dataclasses.replace(left, do=way.do, undo=way.undo[1:]))
        board.change(machine, lambda now: now["gpus"]["GPU-a"].update(locked_core_mhz=1410))
        with pytest.raises(NotRestoredError):
            restoring.restore(state, "GPU-a", "me")


class TestJournal:
    def test_it_reads_as_it_was_written(self, left: Entry, state: Path) -> None:
        assert journal.read(state, "GPU-a") == left
        assert list(journal.uuids(state)) == ["GPU-a"]

    def test_it_is_on_the_disk_before_it_is_in_place(self, left: Entry, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced: list[tuple[bool, str]] = []

        def note(descriptor: int) -> None:
            now = journal.read(state, "GPU-a")
            assert now is not None
            synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), now.note))

        monkeypatch.setattr(os, "fsync", note)
        journal.write(state, left.restored("new"))
        # The file while the old journal stands, then the folder that names the new one.
        assert synced == [(False, ""), (True, "new")]

    def test_none_is_none(self, state: Path) -> None:
        assert journal.read(state, "GPU-a") is None
        assert list(journal.uuids(state)) == []

    @pytest.mark.parametrize("change", [{"undo": []}, {"consent": ""}, {"state": "fine"}, {"idle": {"memory": "x"}}, {"more": 1}])
    def test_what_is_incomplete_is_not_trusted(self, left: Entry, state: Path, change: dict[str, Any]) -> None:
        path = journal.path(state, "GPU-a")
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        with pytest.raises(RecordError, match="not a readable journal"):
            journal.read(state, "GPU-a")

    def test_nobody_else_may_look_in(self, left: Entry, state: Path) -> None:
        assert state.stat().st_mode & 0o077 == 0

    def test_the_folder_is_the_users_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MEMBOUND_STATE", raising=False)
        monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
        assert state_folder.folder() == Path("/somewhere/membound")
        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.setenv("HOME", "/home/me")
        assert state_folder.folder() == Path("/home/me/.local/state/membound")
