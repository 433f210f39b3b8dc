"""Children forked from processes that import PyTorch and its like once: for many captures in a row. Imports no torch."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, final

from membound.ghost import processes
from membound.ghost.processes import Ends, Running, Start, fresh, kill_group
from membound.spec.job import Job

USUAL: tuple[str, ...] = (
    *("membound.ghost.run", "membound.trace.store", "membound.programs.causal_lm"),
    *(f"transformers.{name}" for name in ("masking_utils", "modeling_utils", "modeling_layers", "utils.type_validators")),
)
"""What every server imports. PEFT, and bitsandbytes, which it imports, are left to the children: they make tensors while they are imported, which
the capture of a LoRA has always seen."""
_ENGINES: Final = {"deepspeed": ("deepspeed",)}
_SERVER: Final = "membound.ghost.server"
# Longest that a server may take to see that nobody needs it any more, s; it is killed then.
_PATIENCE: Final = 1.0


def imports(job: Job) -> tuple[str, ...]:
    """What a server imports before it forks the child that captures `job`."""
    return (*USUAL, *_ENGINES.get(job.recipe.engine, ()))


@contextmanager
def preloaded() -> Iterator[Start]:
    """For many captures: within it, children are forked from processes that import PyTorch and its like once, one for each capture at a time.

    Where a process with libraries loaded cannot safely be forked, which is anywhere but on Linux, children are `fresh`.
    """
    if sys.platform != "linux":
        yield fresh
        return
    servers = _Servers()
    try:
        yield servers.start
    finally:
        servers.close()


class _Server:
    """A process of `membound.ghost.server`, and the socket on which it is asked for children."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = processes.python(
                [_SERVER, str(theirs.fileno()), processes.MODULE], subprocess.DEVNULL, subprocess.DEVNULL, theirs.fileno()
            )

    def ask(self, modules: Sequence[str], ends: Ends) -> None:
        """Ask for a child that has imported `modules`. A server that has died is found out later."""
        with suppress(OSError):
            socket.send_fds(self.socket, [json.dumps(modules).encode()], [ends.request, ends.progress, ends.output.fileno()])

    def heard(self, wait: bool) -> bytes | None:
        """What it says next, empty once it and its children are gone; None if it says nothing yet."""
        if not wait and not select.select([self.socket], [], [], 0)[0]:
            return None
        try:
            return self.socket.recv(64)
        except ConnectionError:
            return b""

    def close(self) -> None:
        """End it."""
        self.socket.close()
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@final
class _Forked(Running):
    """The child of a server. It says its number when it is ready, the server how it ended."""

    def __init__(self, server: _Server, done: Callable[[_Server], None]) -> None:
        self._server = server
        self._done = done
        self._child: int | None = None
        self._status: int | None = None
        self._alone = False  # Whether the server is gone, or is the child itself.

    @property
    def pid(self) -> int:
        return self._server.process.pid if self._child is None else self._child

    def ended(self) -> int | None:
        while self._status is None and not self._alone and (said := self._server.heard(wait=False)) is not None:
            self._hear(said)
        if self._alone and self._status is None:
            self._status = self._server.process.poll()
        return self._status

    def kill(self) -> None:
        if self.ended() is None and self._child is None:
            # Being forked, maybe: with its server gone it says its number, or never will.
            self._server.process.kill()
        # Nobody else gets the number before the server is told that it may go.
        self._kill_child()
        while self._status is None and not self._alone:
            self._hear(self._server.heard(wait=True) or b"")
        self._kill_child()
        if self._alone:
            self._server.process.kill()
            self._server.close()
            return
        with suppress(OSError):
            self._server.socket.send(b"done")
        self._done(self._server)

    def _kill_child(self) -> None:
        if self._child is not None:
            kill_group(self._child)

    def _hear(self, said: bytes) -> None:
        match said.split():
            case [b"child", number]:
                self._child = int(number)
            case [b"ended", status]:
                self._status = int(status)
            case _:
                self._alone = True


class _Servers:
    """Servers, each of which has at most one child at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Server] = []
        self._closed = False

    def start(self, job: Job, ends: Ends) -> Running:
        """A child of an idle server, or of a new one."""
        server = self._taken()
        while server is not None and server.process.poll() is not None:  # something has ended it, such as want of memory
            server.close()
            server = self._taken()
        server = server or _Server()
        server.ask(imports(job), ends)
        return _Forked(server, self._keep)

    def _taken(self) -> _Server | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _keep(self, server: _Server) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(server)
                return
        server.close()

    def close(self) -> None:
        """End those that are idle now; the others, when their children have ended."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for server in idle:
            server.close()
