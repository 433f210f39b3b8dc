"""Running a command to its end under watch: its tree of processes sampled, signals passed on, how it ended told."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import psutil

from membound.errors import InputError
from membound.measure import tree
from membound.measure.signals import Held

# How often the tree is sampled: the grid of the table `host`.
_PERIOD: Final = 1.0
# After a request to end: a training script may first write a checkpoint; then it is asked more firmly.
_PATIENCE: Final = 10.0
_LAST_PATIENCE: Final = 5.0


@dataclass(frozen=True)
class Ended:
    """How a watched command ended."""

    status: int
    """Exit status; -N: killed by signal N."""
    asked: int | None = None
    """The signal by which somebody asked this measurement to end, if anybody did."""
    timed_out: bool = False
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Processor time of the whole tree, of the processes that were waited for."""

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"status": self.status, "asked": self.asked, "timed_out": self.timed_out, "seconds": self.seconds, "cpu_seconds": self.cpu_seconds}


@dataclass(frozen=True)
class Watch:
    """How to run a command."""

    command: Sequence[str]
    environment: Mapping[str, str]
    samples: Path
    """File for the samples of the tree."""
    input: int | None = None
    """Standard input of the command; None: ours."""
    output: IO[bytes] | int | None = None
    """Standard output; None: ours."""
    errors: IO[bytes] | int | None = None
    """Standard error; None: ours."""
    time_limit: float | None = None
    own_terminal: bool = False
    """Whether the command keeps the terminal: it then hears Ctrl-C from there, not from us."""

    def run(self, held: Held, tick: Callable[[], None] = lambda: None) -> Ended:
        """Run it to its end; `tick` is called some times a second. Raises `InputError` if it cannot be started."""
        began, before = time.monotonic(), _children_cpu()
        if held.first is not None:
            return Ended(-held.first, held.first)
        process = self._start()
        done = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(process.pid, done), name="membound-tree", daemon=True)
        sampler.start()
        try:
            timed_out = self._wait(process, held, began, tick)
        finally:
            # Whoever listens to steps may have failed: nobody waits for the job any more.
            if process.poll() is None:
                _tell(process.pid, signal.SIGKILL)
                process.wait()
            done.set()
            sampler.join()
        return Ended(process.returncode, held.first, timed_out, time.monotonic() - began, _children_cpu() - before)

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                list(self.command),
                env=dict(self.environment),
                stdin=self.input,
                stdout=self.output,
                stderr=self.errors,
                start_new_session=not self.own_terminal,
            )
        except OSError as error:
            raise InputError("command", self.command[0], f"cannot be started: {error.strerror or error}") from None

    def _sample(self, pid: int, done: threading.Event) -> None:
        try:
            root = psutil.Process(pid)
        except psutil.Error:
            return
        with self.samples.open("a", buffering=1, encoding="utf-8") as file:
            while True:
                found = tree.sample(root)
                if found["processes"]:
                    # A full disk must not end what is measured.
                    with suppress(OSError):
                        file.write(json.dumps(found, separators=(",", ":")) + "\n")
                if done.wait(_PERIOD):
                    return

    def _wait(self, process: subprocess.Popen[bytes], held: Held, began: float, tick: Callable[[], None]) -> bool:
        """Wait for the end; pass on what is asked of us. Returns whether the time limit ended it."""
        passed, timed_out = 0, False
        deadlines: list[tuple[float, int]] = []
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
                break
            tick()
            now = time.monotonic()
            for number in held.numbers[passed:]:
                self._pass_on(process.pid, number, again=passed > 0)
                passed += 1
                deadlines = deadlines or [(now + _PATIENCE, signal.SIGTERM), (now + _PATIENCE + _LAST_PATIENCE, signal.SIGKILL)]
            if self.time_limit is not None and now - began > self.time_limit and not timed_out:
                timed_out = True
                _tell(process.pid, signal.SIGTERM)
                deadlines = [(now + _LAST_PATIENCE, signal.SIGKILL)]
            while deadlines and now > deadlines[0][0]:
                _tell(process.pid, deadlines.pop(0)[1])
        return timed_out

    def _pass_on(self, pid: int, number: int, again: bool) -> None:
        if again:
            _tell(pid, signal.SIGKILL)
        elif not (self.own_terminal and number == signal.SIGINT):
            # To the first process alone: a launcher or a shell passes it on as it sees fit.
            with suppress(psutil.Error):
                psutil.Process(pid).send_signal(number)


def _tell(pid: int, number: int) -> None:
    with suppress(psutil.Error):
        tree.send(tree.members(psutil.Process(pid)), number)


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def has_terminal() -> bool:
    """Whether somebody sits at standard input."""
    try:
        return sys.stdin.isatty()
    # Closed, or replaced by something that is no file.
    except (ValueError, AttributeError):
        return False
