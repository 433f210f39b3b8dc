"""SIGKILL at any moment, of any process: at most a second is lost, every file opens, and the recording says how it ended."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from membound.measure import manifest
from membound.measure.control import Control
from membound.measure.recording import Recording, Source, read
from membound.measure.samples import Samples
from membound.measure.sweep import sweep
from tests.measure.sampling.conftest import H100, killed_at_the_end

# Any number that was never chosen for what it does.
RANDOM = random.Random(20261125)
OWNER = f"""
import sys, time
from pathlib import Path
from membound.measure.recording import Recording, Source
with Recording(Path(sys.argv[1]), Source({H100!r}), period=0.005, host_period=0.05, learn=0) as recording:
    print(recording.epoch_ns, flush=True)
    time.sleep(60)
"""
WORKERS = ("sampler", "drain")
AT_MOST = 1.0
# 32 owners and 20 workers: 52 moments.
OWNERS = 8
ROUNDS = 4
KILLS_OF_WORKERS = 5


def pids(folder: Path) -> dict[str, int]:
    """Both processes of the recording in `folder`, once both have started."""
    control = Control.open(Path(json.loads((folder / "plan.json").read_text())["shared"]))
    while not all(control.get(f"{name}_pid") for name in WORKERS):
        time.sleep(0.005)
    found = {name: control.get(f"{name}_pid") for name in WORKERS}
    control.close()
    return found


def since(epoch_ns: int) -> float:
    return (time.monotonic_ns() - epoch_ns) * 1e-9


def last(samples: Samples) -> float:
    """Time of the last row, s; before all of them, 0."""
    times = samples.tables["gpu"]["time"]
    return float(times[-1].as_py()) if len(times) else 0.0


def check(samples: Samples, folder: Path) -> None:
    """What holds whatever happened."""
    ticks = samples.stored["gpu"]["tick"].to_pylist()
    assert ticks == sorted(set(ticks))
    assert samples.manifest["damaged_parts"] == []
    for path in folder.glob("*.parquet"):
        try:
            pq.read_metadata(path)
        except FileNotFoundError:
            # A drainer that was left alive joins parts meanwhile: what is gone must be within another one.
            assert set(ticks) <= set(read(folder).stored["gpu"]["tick"].to_pylist())


def errors_of(folder: Path) -> Path:
    """Where the process that records into `folder` says why it could not."""
    return folder.with_name(folder.name + ".stderr")


@contextmanager
def owners(folders: Sequence[Path]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that record into `folders`."""
    # Errors into a file: a pipe that nobody reads would stop them.
    started = []
    for folder in folders:
        with open(errors_of(folder), "w") as errors:
            started.append(subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, stderr=errors, text=True))
    with killed_at_the_end(started):
        yield started


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_the_recording_process_is_killed_alone_and_with_its_workers(tmp_path: Path, round_: int) -> None:
    folders = [tmp_path / str(number) for number in range(OWNERS)]
    moments: list[float] = []
    with owners(folders) as processes:
        for process, folder in zip(processes, folders, strict=True):
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the recording ended before it began: {errors_of(folder).read_text()}"
            epoch = int(line)
            victims = [pid for pid in pids(folder).values() if RANDOM.random() < 0.4]
            time.sleep(RANDOM.uniform(0, 0.3))
            for pid in (process.pid, *victims):
                os.kill(pid, signal.SIGKILL)
            moments.append(since(epoch))
            # At once: what lies in memory still counts.
            samples = read(folder)
            assert last(samples) > moments[-1] - AT_MOST
            check(samples, folder)
            process.wait()
    wait_for_the_end(folders)
    for folder, moment in zip(folders, moments, strict=True):
        samples = read(folder)
        assert last(samples) > moment - AT_MOST
        assert samples.ended in {manifest.ORPHANED, manifest.KILLED}
        check(samples, folder)
        # Nothing half written is left lying about.
        assert not list(folder.glob(".*"))


def wait_for_the_end(folders: Sequence[Path]) -> None:
    """Workers end by themselves, soon; whatever was left in memory is swept up by the next recording."""
    deadline = time.monotonic() + 300
    while any(not Path(folder / manifest.NAME).exists() or not manifest.read(folder).get("ended") for folder in folders):
        sweep()
        assert time.monotonic() < deadline, "the workers do not end"
        time.sleep(0.05)


@pytest.mark.parametrize("name", WORKERS)
@pytest.mark.parametrize("round_", range(2))
def test_a_worker_that_is_killed_is_started_again(tmp_path: Path, name: str, round_: int) -> None:
    folder = tmp_path / "r"
    with Recording(folder, Source(H100), period=0.005, host_period=0.05, learn=0) as recording:
        for _ in range(KILLS_OF_WORKERS):
            time.sleep(RANDOM.uniform(0, 0.3))
            victim = pids(folder)[name]
            moment = since(recording.epoch_ns)
            os.kill(victim, signal.SIGKILL)
            samples = read(folder)
            assert last(samples) > moment - AT_MOST
            check(samples, folder)
            while pids(folder)[name] == victim:
                time.sleep(0.01)
            # How soon the next one is at work hangs on what else this machine does.
            while last(read(folder)) < moment:
                assert since(recording.epoch_ns) < moment + 20, "the rows do not go on"
                time.sleep(0.01)
        goal = since(recording.epoch_ns)
        while last(read(folder)) < goal:
            assert since(recording.epoch_ns) < goal + 120, "the rows do not go on"
    samples = read(folder)
    check(samples, folder)
    assert samples.ended == manifest.STOPPED
    assert samples.manifest["sampler"]["restarts"][name] == KILLS_OF_WORKERS
    assert samples.manifest["rows_lost"] == 0


def test_a_worker_that_always_dies_is_given_up_and_what_it_left_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with Recording(folder, Source(H100), period=0.005, host_period=0.05, learn=0):
        previous = 0
        while not read(folder).manifest["sampler"]["gave_up"]:
            current = pids(folder)["drain"]
            if current != previous:
                os.kill(current, signal.SIGKILL)
                previous = current
            time.sleep(0.02)
        time.sleep(0.1)
    samples = read(folder)
    check(samples, folder)
    assert samples.ended == manifest.STOPPED
    # Every tick has its row but those that the sampler itself had to skip.
    assert samples.manifest["grid"]["missed"] == samples.manifest["ticks_missed"]
    assert samples.manifest["rows_lost"] == 0
