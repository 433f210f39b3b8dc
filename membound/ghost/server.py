"""A process that has imported what captures need, and forks a child for each: `python -m membound.ghost.server SOCKET MODULE`.

Only `membound.ghost.servers` speaks with it. A message names modules and carries a child's ends of its pipes; the answers are `child NUMBER`,
by the child itself, and `ended STATUS`. Then a last message lets the number go. The server does nothing but import, and a child inherits that:
what it replaces of PyTorch, and what it crashes, is its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path


def main() -> None:
    """Serve until the other end of the socket is closed."""
    control, answer = socket.socket(fileno=int(sys.argv[1])), importlib.import_module(sys.argv[2]).main
    control.set_inheritable(False)
    # As in a child: what a trace holds must not depend on when a collector runs.
    gc.disable()
    with suppress(ConnectionError):
        while True:
            message, ends, _, _ = socket.recv_fds(control, 4096, 3)
            if not message:
                return
            for place in (1, 2):
                os.dup2(ends[2], place)
            for module in json.loads(message):
                _load(module)
            gc.freeze()
            sys.stdout.flush()
            sys.stderr.flush()
            _answer(control, answer, ends)


def _load(module: str) -> None:
    # What cannot be imported a child finds out itself, and says so as children do.
    with suppress(Exception):
        if module == "deepspeed":
            from membound.ghost.deepspeed_adapter import import_as_on_cuda

            import_as_on_cuda()
        else:
            importlib.import_module(module)


def _answer(control: socket.socket, answer: Callable[[int], None], ends: Sequence[int]) -> None:
    # A thread might hold a lock that a forked child would wait for in vain. Where some library has started one, this process answers itself, once.
    alone = len(list(Path("/proc/self/task").iterdir())) == 1
    child = os.fork() if alone else 0
    if not child:
        _become(control, answer, *ends)
    for end in ends:
        os.close(end)
    # Its number stays its own until the other side says that nobody needs it any more.
    ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    status = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
    control.send(f"ended {status}".encode())
    control.recv(64)
    os.waitpid(child, 0)


def _become(control: socket.socket, answer: Callable[[int], None], request: int, progress: int, output: int) -> None:
    """Be the child, whose end is that of this process."""
    try:
        with suppress(PermissionError):  # where this process leads its group already
            os.setsid()
        control.send(f"child {os.getpid()}".encode())
        control.close()
        os.dup2(request, 0)
        os.close(request)
        os.close(output)
        answer(progress)
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
