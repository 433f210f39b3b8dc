"""A session's side of its watchdog: start it before any change, see that it lives, let it end."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from membound.measure.clocks import watchdog
from membound.measure.clocks.refusals import ClockError

_MODULE: Final = "membound.measure.clocks.watchdog"
_PATIENCE: Final = 30.0
"""How long a watchdog may take to be ready, s. Chosen: a hundred times what Python takes to start."""


class Guard:
    """A running watchdog."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def instruct(self, folder: Path, uuids: Sequence[str]) -> None:
        """Say what to watch over, and wait until it does. Raises `ClockError`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"folder": str(folder.resolve()), "uuids": list(uuids), "parent": os.getpid()}
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        readable, _, _ = select.select([self._process.stdout], [], [], _PATIENCE)
        if not readable or self._process.stdout.readline() != watchdog.READY:
            raise ClockError("the watchdog that is to give the clocks back does not start: no clock is switched without one")

    def check(self) -> None:
        """Raise `ClockError` where it is gone: without it, nothing is to be changed."""
        if self._process.poll() is not None:
            raise ClockError("the watchdog that is to give the clocks back was ended: no clock is switched without one")

    def release(self) -> None:
        """Let it see to what the journals still hold, if anything, and wait until it is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def watched(folder: Path, uuids: Sequence[str], locks: Sequence[int]) -> Iterator[Guard]:
    """A watchdog over the journals of `uuids` in `folder`, which holds `locks` too. Raises `ClockError` where none can be had."""
    guard = Guard(_start(locks))
    try:
        guard.instruct(folder, uuids)
        yield guard
    finally:
        guard.release()


def _start(locks: Sequence[int]) -> subprocess.Popen[bytes]:
    # It finds modules where this process does, never in whatever folder the user happens to stand.
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry or not sys.flags.safe_path)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=locks,
            env={**os.environ, "PYTHONPATH": path},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise ClockError(f"no watchdog can be started ({error.strerror or error}): no clock is switched without one") from None
