"""One session per GPU: a lock file per UUID that the kernel lets go of when the last process that holds it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from membound.measure.clocks import state
from membound.measure.clocks.refusals import BusyError


@contextmanager
def held(folder: Path, uuids: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """Hold the locks of `uuids` in `folder`; their file descriptors, for a watchdog that is to hold them too.

    A file that a dead process left behind locks nothing. Raises `BusyError` where another session holds one, and `StorageError`.
    """
    with ExitStack() as stack:
        descriptors = []
        # In one order for all, so that two sessions never wait for each other.
        for uuid in sorted(uuids):
            descriptor = _open(folder / f"{uuid}.lock")
            stack.callback(os.close, descriptor)
            _take(descriptor, uuid)
            descriptors.append(descriptor)
        yield tuple(descriptors)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise state.refused(path, error) from None


def _take(descriptor: int, uuid: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(f"{uuid}: another session is switching this GPU's clocks, or its watchdog is still giving them back: wait for it") from None
