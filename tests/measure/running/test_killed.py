"""SIGKILL at any moment, of whom it may hit: the folder is a Run throughout, and says how it ended."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import membound
from membound.measure import marks
from membound.measure.place import Place
from membound.measure.plan import Options, Plan, this_process
from membound.run import store
from membound.run.schema import Missing, Value

from .conftest import COMMAND, measure

# Moments in s after the start of the job: while it loads, and while it trains. The same at each run of the tests.
MOMENTS = [round(random.Random(number).uniform(0.0, 6.0), 2) for number in range(5)]


def start(job: str, place: Path) -> subprocess.Popen[str]:
    """An endless measurement of the tiny job, silent."""
    command = [*COMMAND, job, "--out", "run", "--steps", "100000"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=place)


def wait_for(process: subprocess.Popen[str], place: Place, word: str) -> None:
    """Wait until rank 0 has marked `word`."""
    path = marks.file_of(place.marks, 0)
    while not (path.is_file() and word in path.read_text()):
        assert process.poll() is None
        time.sleep(0.05)


def worker_of(process: subprocess.Popen[str]) -> psutil.Process:
    """The rank among the children of a measurement."""
    found = [child for child in psutil.Process(process.pid).children(recursive=True) if "membound.measure.worker" in child.cmdline()]
    return found[0]


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end by themselves."""
    return not psutil.wait_procs(processes, timeout=300)[1]


@pytest.mark.parametrize("moment", MOMENTS)
def test_whoever_measures_may_be_killed(moment: float, job: str, tmp_path: Path) -> None:
    place = Place(tmp_path / "run")
    with start(job, tmp_path) as process:
        while not place.plan.is_file():
            assert process.poll() is None
            time.sleep(0.02)
        assert store.read(place.folder).origin == "measured"  # a Run from the first moment, though with nothing to tell
        time.sleep(moment)
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        assert gone(children)
    run = membound.load(place.folder)
    assert run.about["ended"]["how"] == "killed"
    assert run.fits.why is not None
    assert "membound itself was killed before its end" in run.fits.why
    for value in run.values.values():
        assert isinstance(value, Value) or value.reason


def test_what_was_marked_before_the_kill_is_there(job: str, tmp_path: Path) -> None:
    place = Place(tmp_path / "run")
    with start(job, tmp_path) as process:
        wait_for(process, place, '"step":9')
        seen = [line["step"] for line in marks.facts(marks.read(place.marks)[0], "step")]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    run = membound.load(place.folder)
    steps = [row["step"] for row in run.tables["marks"].to_pylist() if row["kind"] == "step" and row["end"] is not None]
    assert steps[: len(seen)] == seen
    assert run.number("step.time")
    done = measure("--recover", "run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["about"]["ended"]["how"] == "killed"
    assert sorted(path.name for path in place.folder.iterdir()) == ["run.json", "tables"]
    # The ranks may have marked a step or two more before they noticed.
    kept = store.read(place.folder)
    assert kept.number("step.time")
    assert [row["step"] for row in kept.tables["marks"].to_pylist() if row["kind"] == "step"][: len(seen)] == seen


def test_a_rank_may_be_killed(job: str, tmp_path: Path) -> None:
    place = Place(tmp_path / "run")
    with start(job, tmp_path) as process:
        wait_for(process, place, '"step":4')
        worker_of(process).kill()
        _, said = process.communicate()
        assert process.returncode == 1
        assert said == "membound: killed by SIGKILL (the run so far is in run)\n"
    run = store.read(place.folder)
    assert run.about["ended"]["how"] == "failed"
    assert run.number("step.time")


def test_while_it_runs_it_can_be_looked_at_and_not_be_taken_apart(job: str, tmp_path: Path) -> None:
    place = Place(tmp_path / "run")
    with start(job, tmp_path) as process:
        wait_for(process, place, '"step":2')
        assert membound.load(place.folder).about["ended"]["how"] == "running"
        for arguments in (["--recover", "run"], [job, "--out", "run"]):
            done = measure(*arguments, cwd=tmp_path)
            assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        process.kill()
        process.wait()
        assert place.unfinished()
    untold = store.read(place.folder).values["step.time"]
    assert untold == Missing("this measurement has not been put together: membound measure --recover run")


def test_whoever_measures_is_known_by_more_than_a_number() -> None:
    """A process that has ended, though nobody has waited for it yet, and another that has its number since, are not alive."""
    here = this_process()
    with subprocess.Popen(["sleep", "60"]) as other:
        theirs = {"pid": other.pid, "began": began(other.pid)}
        assert plan_by(here).alive()
        assert plan_by(theirs).alive()
        assert not plan_by({**here, "began": here["began"] + 1}).alive()
        other.kill()
        while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert not plan_by(theirs).alive()
    assert not plan_by(theirs).alive()


def began(pid: int) -> float:
    """Ticks of the system at the start of `pid`, as the kernel's file has them."""
    return float(Path(f"/proc/{pid}/stat").read_text().split()[21])


def plan_by(process: dict[str, Any]) -> Plan:
    """Any plan, made by `process`."""
    return Plan({"gpus": 1}, {}, {}, "cpu", Options(), process, 0)
