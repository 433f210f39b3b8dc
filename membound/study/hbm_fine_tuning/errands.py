"""Long errands on a few threads, which let go at once when whoever waits for them is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Final

# Time that threads get to end what they are at, s: those that do not are left to die with the process.
_GRACE: Final = 1.0

Ended = tuple[int, Exception | None]
"""Number of an errand, and what it met."""


class LetGo(Exception):
    """Raised in an errand that nobody waits for any more."""


class Stopping:
    """Whether anybody still waits."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def check(self) -> None:
        """Raises `LetGo` once nobody does."""
        if self._event.is_set():
            raise LetGo

    def set(self) -> None:
        """Nobody does."""
        self._event.set()


@contextmanager
def errands(tasks: Sequence[Callable[[], None]], at_once: int, stopping: Stopping) -> Iterator[Iterator[Ended]]:
    """Each of `tasks` as it ends, so many at once, begun in their order. `stopping` is set when the block ends, however it does.

    The threads are daemons, unlike those of a pool: a signal ends the process without waiting for what may take minutes more.
    """
    todo: SimpleQueue[int] = SimpleQueue()
    done: SimpleQueue[Ended] = SimpleQueue()
    for number in range(len(tasks)):
        todo.put(number)
    threads = [threading.Thread(target=_work, args=(tasks, todo, done, stopping), daemon=True) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        yield (done.get() for _ in tasks)
    finally:
        stopping.set()
        for thread in threads:
            thread.join(_GRACE)


def _work(tasks: Sequence[Callable[[], None]], todo: SimpleQueue[int], done: SimpleQueue[Ended], stopping: Stopping) -> None:
    while True:
        try:
            stopping.check()
            number = todo.get_nowait()
        except (LetGo, Empty):
            return
        try:
            tasks[number]()
        except Exception as met:
            done.put((number, met))
        else:
            done.put((number, None))
