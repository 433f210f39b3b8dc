"""Runs of the command line as people start it, in real processes, and one measured Run that many tests look at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from membound.run import store
from membound.run.schema import Run
from tests.commands import membound

COMMAND = [sys.executable, "-m", "membound", "measure"]
TINY = "model: tiny\ndata: {seq_len: 256}\nrecipe: {micro_batch: 2, learning_rate: 0.003}\n"


def measure(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`membound measure` with `arguments`, run to its end in the folder `cwd`."""
    return membound("measure", *arguments, folder=cwd, CUDA_VISIBLE_DEVICES="")


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a job file: the tiny model, fed so that it learns."""
    path = tmp_path_factory.mktemp("job") / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture(scope="session")
def folder(job: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a measured run of the tiny job: twelve steps of two micro-steps on the CPU."""
    place = tmp_path_factory.mktemp("measured")
    done = measure(job, "--out", "run", "--steps", "12", "--set", "recipe.accumulation=2", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "run"


@pytest.fixture(scope="session")
def run(folder: Path) -> Run:
    """The measured run in `folder`."""
    return store.read(folder)
