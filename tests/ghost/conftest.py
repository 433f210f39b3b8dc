"""Many small captures at the price of one import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

Facts = dict[str, Any]


@pytest.fixture(scope="session")
def capture_all() -> Callable[[list[Facts]], list[Facts]]:
    """The facts of each request {job, config}, from two processes that import once and capture one after another."""

    def run(requests: list[Facts]) -> list[Facts]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).with_name("families.py"))]
        with ThreadPoolExecutor() as two:
            halves = two.map(
                lambda half: subprocess.run(command, input=json.dumps(half), capture_output=True, text=True, env=environment, check=True),
                (requests[::2], requests[1::2]),
            )
        found: list[Facts] = [{}] * len(requests)
        for start, half in enumerate(halves):
            found[start::2] = json.loads(half.stdout.splitlines()[-1])
        return found

    return run
