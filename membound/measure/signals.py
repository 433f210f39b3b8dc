"""Signals that ask a measurement to end: noted, not obeyed at once, so that what was measured so far is still put together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_ASKED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Held:
    """The signals that came since `held` was entered."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        """In the order of their coming."""

    @property
    def first(self) -> int | None:
        """The first that came."""
        return self.numbers[0] if self.numbers else None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.numbers.append(number)


@contextmanager
def held() -> Iterator[Held]:
    """Within: interrupt, termination and hang-up are noted alone. Only the main thread can hear them; elsewhere nothing is noted."""
    noted = Held()
    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.signal(number, noted._hear) for number in _ASKED}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            # None: installed by something that is not Python, and cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
