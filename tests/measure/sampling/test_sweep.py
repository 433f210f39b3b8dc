"""Recordings that start, are killed and are swept up at the same time, by several processes: each rest is stored once, and no start is disturbed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from membound.errors import MeasureError
from membound.measure import manifest, parts, spawn
from membound.measure.control import Control
from membound.measure.hold import Hold
from membound.measure.recording import Recording, Source, read
from membound.measure.sweep import FOLDER, sweep
from tests.measure.sampling.conftest import H100, killed_at_the_end
from tests.measure.sampling.test_killed import check, last, pids, since

RANDOM = random.Random(20261126)
# Shared memory of these tests' own: the first argument.
_OWN = """
import sys, time
from pathlib import Path
from membound.measure import spawn
spawn.shared_folder = lambda: Path(sys.argv[1])
"""
OWNER = f"""{_OWN}
from membound.measure.recording import Recording, Source
with Recording(Path(sys.argv[2]), Source({H100!r}), period=0.005, host_period=0.05, learn=0) as recording:
    print(recording.epoch_ns, flush=True)
    time.sleep(60)
"""
# Sweeps from the moment that the file of the second argument is there until it is gone.
SWEEPER = f"""{_OWN}
import membound.measure.drain
from membound.measure.sweep import sweep
print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    time.sleep(0.0005)
while Path(sys.argv[2]).exists():
    sweep()
"""
DEAD, SWEEPERS, ROUNDS = 4, 3, 3


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for what is shared, which no other test sweeps."""
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setattr(spawn, "shared_folder", lambda: folder)
    return folder


@contextmanager
def running(*programs: tuple[str, ...]) -> Iterator[list[subprocess.Popen[str]]]:
    """Python programs, each with its arguments; killed at the end."""
    processes = [subprocess.Popen([sys.executable, "-c", *each], stdout=subprocess.PIPE, text=True) for each in programs]
    with killed_at_the_end(processes):
        yield processes


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "it ended before it began"
    return line


def kill(folder: Path, owner: subprocess.Popen[str]) -> None:
    """All three processes of a recording, so that none of them can store the rest or start another."""
    workers = pids(folder).values()
    os.kill(owner.pid, signal.SIGSTOP)
    for pid in (*workers, owner.pid):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_several_sweep_the_same_recordings_while_others_start(tmp_path: Path, shared: Path, round_: int) -> None:
    dead, starting = ([tmp_path / f"{name}{number}" for number in range(DEAD)] for name in ("dead", "start"))
    begin = tmp_path / "begin"
    moments = []
    sweepers = [(SWEEPER, str(shared), str(begin))] * SWEEPERS
    with running(*[(OWNER, str(shared), str(folder)) for folder in dead]) as owners, running(*sweepers) as sweeping:
        for owner, folder in zip(owners, dead, strict=True):
            epoch = int(said(owner))
            time.sleep(RANDOM.uniform(0.1, 0.4))
            kill(folder, owner)
            moments.append(since(epoch))
        for each in sweeping:
            said(each)
        begin.touch()
        with running(*[(OWNER, str(shared), str(folder)) for folder in starting]) as healthy:
            epochs = [int(said(each)) for each in healthy]
            begin.unlink()
            for folder, epoch in zip(starting, epochs, strict=True):
                goal = since(epoch)
                while last(read(folder)) < goal:
                    assert since(epoch) < goal + 10, "a recording that nobody may touch does not go on"
                assert read(folder).ended == manifest.RUNNING
    for folder, moment in zip(dead, moments, strict=True):
        samples = read(folder)
        assert samples.ended == manifest.KILLED
        # All rows up to the kill, in files that open, and nothing half written: each rest had one who stored it.
        check(samples, folder)
        assert last(samples) > moment - 1.0
        assert len(samples.stored["gpu"]) == parts.parts(folder, "gpu")[-1].last + 1
        assert not list(folder.glob(".*"))


def test_a_recording_whose_processes_cannot_be_seen_from_here_is_left_alone(tmp_path: Path, shared: Path) -> None:
    with running((OWNER, str(shared), str(tmp_path / "r"))) as [owner]:
        said(owner)
        # As from another container on the same shared memory: other process numbers, other files.
        (place,) = shared.iterdir()
        control = Control.open(place)
        numbers = {name: control.get(name) for name in ("sampler_pid", "drain_pid")}
        for name in numbers:
            control.set(name, 2**22 + 1)
        hidden = tmp_path / "hidden"
        (tmp_path / "r").rename(hidden)
        sweep()
        assert (place / "gpu").exists()
        hidden.rename(tmp_path / "r")
        for name, number in numbers.items():
            control.set(name, number)
        control.close()
        assert read(tmp_path / "r").ended == manifest.RUNNING


def test_what_somebody_sweeps_already_is_left_to_them(tmp_path: Path, shared: Path) -> None:
    place = left(shared, "swept", tmp_path, None)
    hold = Hold.alone(place)
    sweep()
    assert place.exists()
    hold.release()
    sweep()
    assert not place.exists()
    with pytest.raises(FileNotFoundError):
        Hold.with_others(place)


def left(shared: Path, name: str, folder: Path, plan: object) -> Path:
    """What a recording into `folder` might have left behind: held by nobody."""
    place = shared / f"membound-{name}"
    place.mkdir()
    Hold.first(place).release()
    (place / FOLDER).write_text(str(folder))
    if plan is not None:
        folder.mkdir(exist_ok=True)
        (folder / "plan.json").write_text(plan if isinstance(plan, str) else json.dumps(plan))
    return place


def test_whatever_lies_about_a_recording_starts(tmp_path: Path, shared: Path) -> None:
    (shared / "membound-file").write_text("no folder")
    (shared / "membound-empty").mkdir()
    (shared / "membound-older").mkdir()
    (shared / "membound-older" / FOLDER).write_text("made before there were locks")
    unfinished = left(shared, "unfinished", tmp_path, None)
    torn = left(shared, "torn", tmp_path / "torn", "{")
    other = left(shared, "other", tmp_path / "other", {"shared": "a later recording's"})
    for name, ring in {"short": b"mb", "foreign": b"x" * 100}.items():
        place = left(shared, name, tmp_path / name, {"shared": str(shared / f"membound-{name}")})
        control = Control.create(place)
        control.set("epoch_ns", 1)
        control.close()
        (place / "gpu").write_bytes(ring)
    with Recording(tmp_path / "r", Source(H100), learn=0):
        time.sleep(0.2)
    assert read(tmp_path / "r").ended == manifest.STOPPED
    assert not any(place.exists() for place in (unfinished, torn, other)), "nothing of these could be stored"
    assert {place.name for place in shared.iterdir()} == {f"membound-{name}" for name in ("file", "empty", "older", "short", "foreign")}


@pytest.fixture
def small_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Shared memory of 1 MiB: room for the page that the processes share, none for a ring."""
    place = tmp_path / "shm"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting a small memory needs root")
    monkeypatch.setattr(spawn, "shared_folder", lambda: place)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("full", [True, False])
def test_shared_memory_that_is_too_small_is_one_line_with_its_cure(small_memory: Path, tmp_path: Path, full: bool) -> None:
    if full:
        (small_memory / "filler").write_bytes(bytes(1 << 20))
    line = r"no shared memory left for the samples, .* of 1\.00 MiB free: .*--shm-size"
    with pytest.raises(MeasureError, match=line) as caught, Recording(tmp_path / "r", Source(H100), learn=0):
        pass
    assert "\n" not in str(caught.value)
    assert str(small_memory) in str(caught.value)
    assert not list(small_memory.glob("membound-*")), "what it took is given back"
    shutil.rmtree(tmp_path / "r")
