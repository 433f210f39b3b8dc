"""Processes that answer a capture's request: what is asked of each, and the plain kind. Imports no torch."""

from __future__ import annotations

import abc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final, final

from membound.spec.job import Job

MODULE = "membound.ghost.child"
"""What such a process runs."""
# One thread: fake tensors compute nothing, and a process with threads cannot be forked; Arrow's allocator starts one unless told not to.
# No GPU: a trace must not depend on the machine that captured it.
_ENVIRONMENT: Final = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONHASHSEED": "0",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}


@dataclass(frozen=True)
class Ends:
    """A child's ends of what joins it to its parent."""

    request: int
    """Where it reads its request; the end of it means that the parent is gone."""
    progress: int
    output: IO[bytes]
    """Whatever it prints."""


class Running(abc.ABC):
    """A child process at work, the leader of a process group of its own."""

    @property
    @abc.abstractmethod
    def pid(self) -> int:
        """Its number, or that of the process that will fork it."""

    @abc.abstractmethod
    def ended(self) -> int | None:
        """Its exit status, minus the signal that ended it, or None while it runs. Does not wait."""

    @abc.abstractmethod
    def kill(self) -> None:
        """End it, if it has not ended, and whatever it started."""


Start = Callable[[Job, Ends], Running]
"""Starts the child that captures a Job."""


def fresh(job: Job, ends: Ends) -> Running:
    """A Python of its own."""
    process = python([MODULE, str(ends.progress)], ends.request, ends.output, ends.progress)
    return _Fresh(process)


def python(arguments: Sequence[str], stdin: int, output: IO[bytes] | int, passed: int) -> subprocess.Popen[bytes]:
    """A Python that runs a module, in a session of its own, and inherits the file `passed`."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *arguments],
        stdin=stdin,
        stdout=output,
        stderr=output,
        pass_fds=[passed],
        env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": _search_path()},
        start_new_session=True,
    )


def _search_path() -> str:
    # The child finds modules exactly where this process does, and never in whatever folder the user happens to stand.
    return os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry or not sys.flags.safe_path)


def kill_group(leader: int) -> None:
    """End the process `leader`, and whatever it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


@final
class _Fresh(Running):
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        kill_group(self._process.pid)
        self._process.wait()
