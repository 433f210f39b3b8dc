"""The process behind `tests.prepared`: runs a preparation, then forks a process for each request, until nobody can ask any more."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
import types
from collections.abc import Sequence
from contextlib import suppress
from typing import Any


def asked(control: socket.socket) -> dict[str, Any] | None:
    """In a forked process its request; in this one None, once the other end is closed."""
    while True:
        message, ends, _, _ = socket.recv_fds(control, 64, 5)
        if not message:
            return None
        # A child's collections are its own: they leave alone, and uncopied, what was there before.
        gc.collect()
        gc.freeze()
        if not (keeper := os.fork()):
            control.close()
            return kept(*ends)
        for end in ends:
            os.close(end)
        os.waitpid(keeper, 0)


def kept(request: int, told: int, *streams: int) -> dict[str, Any]:
    """In a forked process its request, when it has become that process. One in between waits for it and tells its number and how it ended."""
    if os.fork():
        os._exit(0)
    if not (child := os.fork()):
        os.close(told)
        return become(request, streams)
    for end in (request, *streams):
        os.close(end)
    with socket.socket(fileno=told) as client, suppress(OSError):
        client.send(str(child).encode())
        client.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def become(number: int, streams: Sequence[int]) -> dict[str, Any]:
    """Take over streams, environment, folder and arguments."""
    with open(number, "rb") as file:
        file.seek(0)
        request: dict[str, Any] = json.load(file)
    for place, end in enumerate(streams):
        os.dup2(end, place)
        os.close(end)
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:0] = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry not in {"", *sys.path}]
    sys.argv = ["-c", *request["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return request


def main(control: socket.socket, preparation: str) -> None:
    """Serve; and be what is forked, to its natural end."""
    exec(preparation, {"__name__": "prepared"})
    if (request := asked(control)) is not None:
        sys.modules["__main__"] = module = types.ModuleType("__main__")
        exec(compile(request["code"], "<string>", "exec"), vars(module))


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
