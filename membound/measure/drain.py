"""The drainer: a process of its own that moves the ring's rows to disk each second, and keeps the manifest.

What it has not stored yet stays in the ring, which outlives it. Where the disk is full it keeps the rows in memory and tries again.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from membound.measure import manifest, parts, spawn
from membound.measure.control import Control, State
from membound.measure.hold import Hold
from membound.measure.ring import Ring
from membound.measure.sensors import columns

# How often rows are stored, s: what a killed machine may lose.
_EVERY: Final = 1.0
# How often it looks whether all is over, s.
_LOOK: Final = 0.05
# How often the manifest is written anew, s.
_MANIFEST_EVERY: Final = 60.0
# Rows that are kept in memory while the disk is full: some 100 MB.
_MOST_PENDING: Final = 400_000
# How long the end waits for the sampler's own end, s.
_SAMPLER_LIMIT: Final = 3.0
# Kept free on the disk for the end of the manifest and the last rows, should the disk be full by then.
_RESERVE: Final = 1 << 20
_RESERVE_NAME: Final = ".reserve"


def main(arguments: Sequence[str]) -> None:
    """Drain until the recording ends. `arguments`: the recording's folder."""
    folder = Path(arguments[0])
    plan = json.loads((folder / "plan.json").read_text())
    shared = Path(plan["shared"])
    try:
        hold = Hold.with_others(shared)
        control = Control.open(shared)
    except OSError as error:
        # The owner was killed before this process was there, and what it left is swept up already.
        print(f"{shared}: {error}", flush=True)
        return
    # Not whoever is the parent by now: the owner may be dead already.
    owner = int(plan["owner"])
    control.set("drain_pid", os.getpid())
    drain = Drain(folder, plan, control)
    deadline = time.monotonic() + _EVERY
    while not control.get("stop") and os.getppid() == owner:
        time.sleep(_LOOK)
        if time.monotonic() >= deadline:
            drain.step()
            deadline = max(deadline + _EVERY, time.monotonic())
    drain.finish(manifest.STOPPED if control.get("stop") else manifest.ORPHANED)
    if not control.get("stop"):
        control.close(remove=True)
    hold.release()


class Drain:
    """Rings to parts. `write` is how a part is written: `membound.measure.parts.write`."""

    def __init__(
        self, folder: Path, plan: dict[str, Any], control: Control, write: Callable[[Path, str, npt.NDArray[Any]], parts.Part] = parts.write
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._control = control
        self._write = write
        self._rings: dict[str, Ring] = {}
        self._pending: dict[str, list[npt.NDArray[Any]]] = {table: [] for table in columns.TABLES}
        self._next = {table: _stored(folder, table) for table in columns.TABLES}
        self._clocks = [*manifest.read(folder).get("clocks", []), manifest.clock()]
        self._written_ns = 0
        with contextlib.suppress(OSError):
            # Random: a file system that compresses would keep no room for zeros.
            (folder / _RESERVE_NAME).write_bytes(os.urandom(_RESERVE))

    def step(self) -> None:
        """Store what is new. A disk that refuses is tried again the next time."""
        self._take()
        try:
            for table in columns.TABLES:
                self._store(table)
                parts.join(self._folder, table)
            if self._control.get("epoch_ns") and time.monotonic_ns() - self._written_ns > _MANIFEST_EVERY * 1e9:
                self._clocks.append(manifest.clock())
                self._manifest(None)
        except OSError as error:
            self._refused(error)
        self._control.set("drain_cpu_ns", time.process_time_ns())

    def finish(self, ended: str) -> None:
        """Store the rest, join the parts, and write how it ended."""
        self._await_sampler()
        self._take()
        # The reserve, and what a drainer that was killed had begun to write.
        for path in (self._folder / _RESERVE_NAME, *self._folder.glob(".*.draft")):
            path.unlink(missing_ok=True)
        self._clocks.append(manifest.clock())
        self._control.set("drain_cpu_ns", time.process_time_ns())
        end = functools.partial(self._manifest, ended)
        # The manifest first, while the reserve leaves room for it, and again at the end, when all is known.
        for action in (end, self._store_all, self._join_all, end):
            try:
                action()
            except OSError as error:
                self._refused(error)

    def _store_all(self) -> None:
        for table in columns.TABLES:
            self._store(table)

    def _join_all(self) -> None:
        for table in columns.TABLES:
            parts.join(self._folder, table, everything=True)

    def _await_sampler(self) -> None:
        deadline = time.monotonic() + _SAMPLER_LIMIT
        while time.monotonic() < deadline and self._control.get("state") != State.ENDED and spawn.alive(self._control.get("sampler_pid")):
            time.sleep(0.005)

    def _take(self) -> None:
        """Copy new rows out of the rings."""
        for table in columns.TABLES:
            ring = self._ring(table)
            if ring is None:
                continue
            rows, lost = ring.read(self._next[table])
            self._next[table] += len(rows) + lost
            if len(rows):
                self._pending[table].append(rows)
            self._lose(lost + self._shed(table))

    def _shed(self, table: str) -> int:
        """Let the oldest rows go where memory would not hold them all."""
        shed = 0
        pending = self._pending[table]
        while sum(map(len, pending)) > _MOST_PENDING:
            shed += len(pending.pop(0))
        return shed

    def _lose(self, rows: int) -> None:
        if rows:
            self._control.set("rows_lost", self._control.get("rows_lost") + rows)

    def _ring(self, table: str) -> Ring | None:
        if table not in self._rings and (Path(self._plan["shared"]) / table).exists():
            self._rings[table] = Ring(Path(self._plan["shared"]) / table)
        return self._rings.get(table)

    def _store(self, table: str) -> None:
        pending = self._pending[table]
        if pending:
            self._write(self._folder, table, np.concatenate(pending))
            pending.clear()

    def _refused(self, error: OSError) -> None:
        if error.errno in {errno.ENOSPC, errno.EDQUOT} and not self._control.get("disk_full_ns"):
            self._control.set("disk_full_ns", time.monotonic_ns())
        # The log lies on the same disk.
        with contextlib.suppress(OSError):
            print(f"the disk refused: {error}", flush=True)

    def _manifest(self, ended: str | None) -> None:
        manifest.write(self._folder, manifest.compose(self._plan, self._control, self._clocks, ended))
        self._written_ns = time.monotonic_ns()


def _stored(folder: Path, table: str) -> int:
    """Number of the first row that no part holds."""
    return max((part.last + 1 for part in parts.parts(folder, table)), default=0)
