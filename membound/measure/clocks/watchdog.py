"""The watchdog: a process in a session of its own that gives clocks back when the process that changed them is gone, however it went.

It holds the GPUs' locks with its parent, so that no other session begins before it is done. Its parent starts it before any change:
`membound.measure.clocks.guard`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from membound.measure.clocks import restoring

READY: Final = b"ready\n"
_TRIES: Final = 3
"""How often a GPU is tried. Chosen."""
_PAUSE: Final = 1.0
"""Time between two tries, s. Chosen."""


def main() -> None:
    """Wait for the parent's end; standard input says whose clocks to give back, and its own end that the parent is gone."""
    # Whoever ends the parent so also asks the watchdog, which has the parent's work to finish.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if not line:
        # The parent went before it could change anything.
        return
    request: dict[str, Any] = json.loads(line)
    watcher = _watch(int(request["parent"]))
    with suppress(OSError):
        os.write(sys.stdout.fileno(), READY)
    select.select([sys.stdin, *([] if watcher is None else [watcher])], [], [])
    # Where all is given back already, the journals say so.
    _restore(Path(request["folder"]), request["uuids"])


def _watch(parent: int) -> int | None:
    """A descriptor that tells of the parent's end, even where a child of its own keeps the pipe open; None on an older kernel."""
    try:
        return os.pidfd_open(parent)
    except OSError:
        return None


def _restore(folder: Path, uuids: Sequence[str]) -> None:
    for uuid in uuids:
        for last in (*[False] * (_TRIES - 1), True):
            try:
                outcome = restoring.restore(folder, uuid, by="the watchdog")
            # Whatever it is: the other tries and the other GPUs are still to come.
            except Exception as error:
                _say(str(error) or repr(error))
                if not last:
                    time.sleep(_PAUSE)
            else:
                if outcome.calls:
                    _say(f"{uuid}: {outcome.text}")
                break


def _say(text: str) -> None:
    # Nobody may be there to read.
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"membound: {text}\n".encode())


if __name__ == "__main__":
    main()
