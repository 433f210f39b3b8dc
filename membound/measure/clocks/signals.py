"""Signals that ask a process to end: turned into exceptions, so that clocks are given back, and held off while that happens."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def raising() -> Iterator[None]:
    """Let signals that would end the process at once raise `SystemExit` instead; handlers that are there already stay.

    Outside the main thread, where Python allows no handlers, nothing is done: the watchdog is left.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    default = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in default:
        signal.signal(number, _exit)
    try:
        yield
    finally:
        for number in default:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def shielded() -> Iterator[None]:
    """Hold such signals off; they come once the block has ended.

    Python runs handlers in the main thread whichever thread the system interrupts, so that handlers are exchanged rather than masked.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda which, _: came.append(which)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that was not installed from Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for each in dict.fromkeys(came):
            signal.raise_signal(each)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
