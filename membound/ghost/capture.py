"""Capture the Trace of a Job in a child process, within limits of memory and time. Imports no torch.

Whatever happens to the child (exception, abort, endless loop, Ctrl-C here), the parent gets a Trace or raises one clear error,
and nothing is left behind.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from membound import errors, units
from membound.errors import CaptureError, MemboundError, StorageError
from membound.ghost.processes import Ends, Running, Start, fresh
from membound.spec.job import Job
from membound.trace import store
from membound.trace.schema import Trace

_POLL: Final = 0.1
"""Time between two looks at the child, s."""
_TRACE, _FAILURE = "trace", "failure.json"


@dataclass(frozen=True)
class Limits:
    """What a capture may take of this computer."""

    memory: float = 4 * 2.0**30
    """Resident memory of the child, B."""
    seconds: float = 600.0
    """Wall-clock time, s."""


@dataclass(frozen=True)
class Progress:
    """How far a capture is: the stage's name and, while training, how many micro-steps of how many are done."""

    stage: str
    done: int = 0
    total: int = 0


def unheard(progress: Progress) -> None:
    """Hears no progress."""


def capture(
    job: Job,
    config: Mapping[str, Any],
    ranks_per_node: int,
    limits: Limits | None = None,
    progress: Callable[[Progress], None] = unheard,
    start: Start = fresh,
) -> Trace:
    """The Trace of rank 0 of `job`, whose model has the Hugging Face configuration `config`.

    `start` starts the child: for many captures, see `membound.ghost.servers`. The Trace's `extra` holds what the capture took: `seconds`
    and `resident` (B, at its peak). Raises the Program's own `MemboundError`, or `CaptureError` for any other failure and for a limit reached.
    """
    with _workplace() as folder:
        request = {"job": job.model_dump(mode="json"), "config": dict(config), "ranks_per_node": ranks_per_node, "folder": str(folder)}
        with _child(job, folder, start) as child:
            child.send(request)
            child.follow(limits or Limits(), progress)
        trace = store.read(folder / _TRACE)
    return dataclasses.replace(trace, extra={"seconds": child.seconds, "resident": child.resident})


@contextmanager
def _workplace() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="membound-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(f"no temporary folder can be made ({error.strerror or error}): set TMPDIR to one that can be written") from None
    with folder as name:
        yield Path(name)


@contextmanager
def _child(job: Job, folder: Path, start: Start) -> Iterator[_Child]:
    with ExitStack() as ours:
        with ExitStack() as theirs:
            (read, write), (told, tell) = os.pipe(), os.pipe()
            for stack, end in ((ours, write), (ours, told), (theirs, read), (theirs, tell)):
                stack.callback(os.close, end)
            output = theirs.enter_context((folder / "output.txt").open("wb"))
            running = start(job, Ends(read, tell, output))
            ours.callback(running.kill)
        yield _Child(running, write, told, folder)


class _Child:
    """A running capture: its process, and the pipe that tells how far it is."""

    def __init__(self, running: Running, request: int, told: int, folder: Path) -> None:
        self.running = running
        self.resident = 0
        self.seconds = 0.0
        self._request = request
        self._told = told
        self._folder = folder
        self._unread = b""
        self._began = time.monotonic()

    def send(self, request: dict[str, Any]) -> None:
        """Hand the request over; the pipe then stays open, and its end is how the child learns that this process died."""
        try:
            unsent = json.dumps(request).encode() + b"\n"
            while unsent:
                unsent = unsent[os.write(self._request, unsent) :]
        except BrokenPipeError:
            while (status := self.running.ended()) is None:
                time.sleep(_POLL)
            raise self._died(status) from None

    def follow(self, limits: Limits, progress: Callable[[Progress], None]) -> None:
        """Wait for the end, keeping to `limits`. Raises what went wrong."""
        while (status := self.running.ended()) is None:
            self._hear(progress)
            self.seconds = time.monotonic() - self._began
            self._weigh()
            if self.resident > limits.memory:
                raise CaptureError(
                    f"the capture outgrew its memory limit of {units.show(limits.memory, 'B')}: raise it with --capture-memory, "
                    f"for example {units.show(limits.memory * 2, 'B')}"
                )
            if self.seconds > limits.seconds:
                raise CaptureError(
                    f"the capture took longer than its limit of {units.show(limits.seconds, 's')}: raise it with --capture-time, "
                    f"for example {units.show(limits.seconds * 2, 's')}"
                )
        if status != 0:
            raise self._died(status)

    def _weigh(self) -> None:
        with suppress(psutil.Error):
            self.resident = max(self.resident, psutil.Process(self.running.pid).memory_info().rss)

    def _hear(self, progress: Callable[[Progress], None]) -> None:
        readable, _, _ = select.select([self._told], [], [], _POLL)
        if not readable:
            return
        heard = os.read(self._told, 65536)
        if not heard:
            # The child has closed its end and is about to be gone.
            time.sleep(_POLL / 10)
            return
        *lines, self._unread = (self._unread + heard).split(b"\n")
        for line in lines:
            progress(Progress(**json.loads(line)))

    def _died(self, status: int) -> MemboundError:
        try:
            failure = json.loads((self._folder / _FAILURE).read_text())
        except (OSError, ValueError):
            return CaptureError(f"the training program {_ending(status)}: {_last_words(self._folder / 'output.txt')}")
        return _revived(failure)


def _revived(failure: dict[str, Any]) -> MemboundError:
    kind = getattr(errors, failure["type"], None) if failure["ours"] else None
    if not (isinstance(kind, type) and issubclass(kind, MemboundError)):
        text = next((line.strip() for line in failure["text"].splitlines() if line.strip()), "")
        return CaptureError(f"the training program raised {failure['type']}{': ' if text else ''}{text[:400]}")
    # Made without its own __init__, whose arguments are not all known any more; its text is.
    error: MemboundError = kind.__new__(kind, failure["text"])
    vars(error).update(failure["attributes"])
    return error


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else str(-status)
    return f"was ended by {name}{' (for want of memory, most likely)' if name == 'SIGKILL' else ''}"


def _last_words(output: Path) -> str:
    try:
        lines = output.read_bytes()[-20_000:].decode("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    lines = [line.strip() for line in lines if line.strip()]
    telling = [line for line in lines if line.startswith("what():") or "Error" in line]
    return (telling or lines or ["it said nothing"])[-1][:400]
