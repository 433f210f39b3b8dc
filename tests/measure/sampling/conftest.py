"""Recordings of the synthetic H100, made once for all tests that only look at them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from membound.measure.recording import Recording, Source, read
from membound.measure.samples import Samples
from membound.measure.source import Fault

H100 = "synthetic-h100"
Record = Callable[..., Samples]


def record_into(folder: Path, seconds: float, *faults: Fault, gpus: int = 1, **how: Any) -> Samples:
    """Record the synthetic H100 for `seconds`."""
    with Recording(folder, Source(H100, gpus, faults), **{"learn": 0.0, "host_period": 0.2, **how}):
        time.sleep(seconds)
    return read(folder)


@contextmanager
def killed_at_the_end(processes: list[subprocess.Popen[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """`processes`, none of which outlives the block."""
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Records into a folder of this test's own."""
    return lambda seconds, *faults, **how: record_into(tmp_path / "recording", seconds, *faults, **how)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Two and a half seconds of eight GPUs on the usual grid, with HBM bytes counted."""
    return record_into(tmp_path_factory.mktemp("recorded") / "recording", 2.5, gpus=8, hbm="pm", learn=0.5)
