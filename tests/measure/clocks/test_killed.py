"""Sweeps that are cut off: by SIGKILL at any moment, with and without their watchdog, and by the signals that ask."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from membound.measure.clocks import journal, lock
from membound.measure.clocks import simulated_board as board
from membound.measure.clocks.refusals import BusyError

KILLS = 60
GPUS = ("GPU-a", "GPU-b")
UNTOUCHED = dict.fromkeys(GPUS, (None, None, None))
Clocks = Callable[[], dict[str, Any]]


@pytest.fixture
def begin(machine: Path, state: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a life whose two measurements take this long each, s."""

    def start(seconds: float, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(Path(__file__).with_name("life.py")), str(machine), str(state), str(seconds), *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    return start


def wait_until(true: Callable[[], bool], patience: float = 300) -> None:
    """Wait for something to become true; fail where it does not."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def free(state: Path) -> bool:
    """Whether nobody holds the GPUs' locks: neither a session nor its watchdog."""
    try:
        with lock.held(state, GPUS):
            return True
    except BusyError:
        return False


def changed(clocks: Clocks) -> bool:
    """Whether any clock of any GPU is set."""
    return clocks() != UNTOUCHED


def unfinished(state: Path) -> list[str]:
    """GPUs whose journal, which can always be read, does not say restored."""
    entries = [journal.read(state, uuid) for uuid in journal.uuids(state)]
    return [entry.uuid for entry in entries if entry and entry.state != "restored"]


def watchdogs(parent: int) -> list[psutil.Process]:
    """Watchdogs of the process `parent`."""
    with suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(parent).children() if any("watchdog" in word for word in child.cmdline())]
    return []


def test_killed_at_any_moment_the_clocks_come_back(begin: Any, machine: Path, state: Path, clocks: Clocks) -> None:
    began = time.monotonic()
    whole = begin(0.02)
    assert whole.communicate()[0] == "lived\n"
    life = time.monotonic() - began
    moments = random.Random(20261125)
    cut = by_watchdog = 0
    for _ in range(KILLS):
        before = len(board.calls(machine))
        began = time.monotonic()
        process = begin(0.02)
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0, life))
        if process.poll() is None:
            cut += 1
        else:  # lives are shorter by now: the machine has less to do than when the first one was timed
            life = min(life, time.monotonic() - began)
        process.kill()
        process.communicate()
        wait_until(lambda: free(state))
        assert not changed(clocks)
        assert unfinished(state) == []
        by_watchdog += any(call["pid"] != process.pid for call in board.calls(machine)[before:])
    # The moments are worth something: most lives were cut, and in some of them the watchdog had clocks to give back.
    assert cut > KILLS / 2
    assert by_watchdog > 0


@pytest.mark.parametrize("both", [True, False], ids=["with its watchdog", "alone"])
def test_killed_while_it_measures(begin: Any, state: Path, clocks: Clocks, both: bool) -> None:
    process = begin(30)
    wait_until(lambda: all(lock is not None for lock, *_ in clocks().values()))
    (dog,) = watchdogs(process.pid)
    if both:
        dog.kill()
    process.kill()
    process.communicate()
    wait_until(lambda: free(state))
    if not both:
        assert not changed(clocks)
        assert {journal.read(state, uuid).note for uuid in GPUS} == {"1593 MHz given back by the watchdog, reads 2619 MHz"}  # type: ignore[union-attr]
        return
    # Nobody was left to give the clocks back; the journals were, and `membound restore` goes by them.
    assert changed(clocks)
    done = subprocess.run([sys.executable, "-m", "membound", "restore", "--json"], capture_output=True, text=True, check=True)
    assert {uuid: found["restored"] for uuid, found in json.loads(done.stdout)["gpus"].items()} == dict.fromkeys(GPUS, True)
    assert not changed(clocks)
    assert unfinished(state) == []


def test_its_watchdog_killed_it_gives_the_clocks_back_itself(begin: Any, state: Path, clocks: Clocks) -> None:
    process = begin(0.5)
    wait_until(lambda: changed(clocks))
    for dog in watchdogs(process.pid):
        dog.kill()
    process.communicate()
    # The second point is refused: there is no watchdog for it.
    assert process.returncode == 1
    assert not changed(clocks)
    assert unfinished(state) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_asked_to_end_it_gives_the_clocks_back_itself(begin: Any, machine: Path, state: Path, clocks: Clocks, number: signal.Signals) -> None:
    process = begin(30)
    wait_until(lambda: changed(clocks))
    process.send_signal(number)
    process.communicate()
    assert process.returncode != 0
    assert not changed(clocks)
    assert unfinished(state) == []
    assert {call["pid"] for call in board.calls(machine)} == {process.pid}


def test_the_watchdog_itself_does_not_end_when_asked(begin: Any, state: Path, clocks: Clocks) -> None:
    process = begin(30)
    wait_until(lambda: changed(clocks))
    (dog,) = watchdogs(process.pid)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        dog.send_signal(number)
    process.kill()
    process.communicate()
    wait_until(lambda: free(state))
    assert not changed(clocks)


def test_the_watchdog_holds_the_lock_until_it_is_done(begin: Any, machine: Path, state: Path, clocks: Clocks) -> None:
    board.fault(machine, deaf_to_reset=True)
    process = begin(30)
    wait_until(lambda: changed(clocks))
    process.kill()
    process.communicate()
    with pytest.raises(BusyError, match="watchdog"), lock.held(state, GPUS):
        pytest.fail("held")
    board.fault(machine, deaf_to_reset=False)
    wait_until(lambda: free(state))
    assert not changed(clocks)


def test_a_child_that_outlives_the_session_does_not_keep_the_clocks(begin: Any, clocks: Clocks) -> None:
    # It holds the session's end of the pipe to the watchdog too, which sees the session's own end all the same.
    process = begin(30, "fork")
    wait_until(lambda: changed(clocks) and len(psutil.Process(process.pid).children()) == 2)
    children = psutil.Process(process.pid).children()
    process.kill()
    try:
        wait_until(lambda: not changed(clocks))
    finally:
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.communicate()
