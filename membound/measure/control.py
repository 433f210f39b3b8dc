"""What the recording's processes tell each other: a page of shared memory with one integer per name, and a text.

Each name has one writer, and a store of eight aligned bytes is never seen half done, so there is no lock: a process may be killed anywhere.
"""

from __future__ import annotations

import enum
import json
import mmap
import shutil
import struct
from pathlib import Path
from typing import Any, Final, Self

_FILE: Final = "control"
# Name: who writes it.
_NAMES: Final = (
    "stop",  # owner: 1 asks all to end
    "epoch_ns",  # owner: time.monotonic_ns of the moment 0
    "sampler_restarts",  # owner
    "drain_restarts",  # owner
    "gave_up",  # owner: 1 where a process died so often that it is not started again
    "sampler_pid",  # sampler
    "state",  # sampler: see State
    "beat_ns",  # sampler: time.monotonic_ns of its last sign of life
    "cpu_ns",  # sampler: processor time of this process so far
    "cpu_before_ns",  # sampler: of those that were killed before it
    "began_ns",  # sampler: when this process was ready
    "cpu_began_ns",  # sampler: what it had cost by then
    "ticks_missed",  # sampler: ticks of the grid that no row was written for
    "reads_missed",  # sampler: ticks at which a fast sensor was still busy with an earlier one
    "text_version",  # sampler: odd while the text is being changed
    "text_length",  # sampler
    "drain_pid",  # drainer
    "drain_cpu_ns",  # drainer
    "disk_full_ns",  # drainer: when the disk first refused, 0: never
    "rows_lost",  # drainer: rows that were overwritten, or given up, before they could be stored
)
_SLOT: Final = {name: 8 * place for place, name in enumerate(_NAMES)}
_TEXT: Final = 4096
_SIZE: Final = _TEXT + 512 * 1024
_INT: Final = struct.Struct("<q")


class State(enum.IntEnum):
    """How far the sampler is."""

    STARTING = 0
    READY = 1
    ENDED = 2


class Control:
    """The page, seen from one process."""

    def __init__(self, shared: Path, size: int) -> None:
        self.shared = shared
        with open(shared / _FILE, "r+b") as file:
            self._page = mmap.mmap(file.fileno(), size)

    @classmethod
    def create(cls, shared: Path) -> Self:
        """A page of zeros in the folder `shared`. Raises `OSError`."""
        (shared / _FILE).write_bytes(bytes(_SIZE))
        return cls(shared, _SIZE)

    @classmethod
    def open(cls, shared: Path) -> Self:
        """The page that lies in `shared`. Raises `OSError`."""
        return cls(shared, _SIZE)

    def get(self, name: str) -> int:
        """The integer `name`."""
        value: int = _INT.unpack_from(self._page, _SLOT[name])[0]
        return value

    def set(self, name: str, value: int) -> None:
        """Let `name` be `value`."""
        _INT.pack_into(self._page, _SLOT[name], value)

    def tell(self, document: dict[str, Any]) -> None:
        """Put `document` in the place of the text. The sampler alone does."""
        text = json.dumps(document).encode()
        if len(text) > _SIZE - _TEXT:
            text = json.dumps({"error": f"the sampler's account is too long: {len(text)} B"}).encode()
        version = self.get("text_version") | 1
        self.set("text_version", version)
        self._page[_TEXT : _TEXT + len(text)] = text
        self.set("text_length", len(text))
        self.set("text_version", version + 1)

    def told(self) -> dict[str, Any]:
        """The text as it was when it was last whole; empty where it never was, or its writer was killed over it."""
        for _ in range(100):
            version = self.get("text_version")
            text = self._page[_TEXT : _TEXT + self.get("text_length")]
            if version == self.get("text_version") and version and version % 2 == 0:
                document: dict[str, Any] = json.loads(text)
                return document
        return {}

    def close(self, remove: bool = False) -> None:
        """Let go of the page; with `remove`, of the shared folder too."""
        self._page.close()
        if remove:
            shutil.rmtree(self.shared, ignore_errors=True)
