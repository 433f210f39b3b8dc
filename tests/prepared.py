"""Processes with their imports done: a real process for each command, forked from one that has imported what all of them need.

Such a process has its own standard streams, environment, folder, exit status and signals. What it cannot show is how Python itself begins:
options of the interpreter, variables that only its start reads, and what is imported when. Tests of those start `sys.executable`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, final


@final
class Child:
    """A process that was forked."""

    def __init__(self, ends: socket.socket) -> None:
        self._ends = ends
        self.pid = int(ends.recv(64))
        """Its number."""

    def wait(self, seconds: float | None = None) -> int:
        """Its exit status, minus the signal that ended it. Raises `TimeoutError` after so many seconds."""
        self._ends.settimeout(seconds)
        with self._ends:
            return int(self._ends.recv(64))


@final
class Prepared:
    """A process that has run `preparation` in the environment `environment`, and forks."""

    def __init__(self, preparation: str, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # One thread: a process with more cannot safely be forked.
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
        path = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("prepared_server.py")), str(theirs.fileno()), preparation],
                pass_fds=[theirs.fileno()],
                env={**environment, **path, **single},
            )

    def start(
        self,
        code: str,
        arguments: Sequence[str],
        streams: Sequence[int | IO[bytes]],
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Child:
        """A process that runs `code` as `python -c` would, its standard input, output and error being `streams`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {"code": code, "arguments": list(arguments), "environment": dict(environment or os.environ), "folder": str(folder or Path.cwd())}
        with theirs, TemporaryFile() as file:
            file.write(json.dumps(request).encode())
            file.flush()
            numbers = [each if isinstance(each, int) else each.fileno() for each in streams]
            socket.send_fds(self._control, [b"start"], [file.fileno(), theirs.fileno(), *numbers])
        return Child(ours)

    def run(
        self, code: str, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What such a process said and how it ended."""
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            status = self.start(code, arguments, (given, out, err), environment, folder).wait()
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(list(arguments), status, out.read().decode(), err.read().decode())

    def close(self) -> None:
        """End it, once it is not busy; what it forked goes on."""
        self._control.close()
        self._process.wait()
