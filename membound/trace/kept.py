"""A folder of entries by key: each appears whole or not at all, is checked when it is read, and goes when the longest unused must.

Several processes may use it at once. A convenience: no trouble with it ever stops anybody.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from membound import folders
from membound.errors import RecordError, StorageError

_SUMS: Final = "sums.json"
# An unfinished entry of this age belongs to nobody any more, s.
_ABANDONED = 3600.0

Found = TypeVar("Found")


@dataclass(frozen=True)
class Kept:
    """Entries of one kind."""

    folder: Path
    content: str
    """Name of the folder within an entry that holds what is kept; beside it lie the sums of its files."""
    what: str
    """In words, for a warning."""
    cap: float
    """Bytes that all entries together may take."""
    warn: Callable[[str], None]

    def read(self, key: str, reader: Callable[[Path], Found]) -> Found | None:
        """What `reader` makes of the entry of `key`, or None: not there, or damaged, and then removed."""
        entry = self.folder / key
        try:
            if not entry.is_dir():
                return None
            if json.loads((entry / _SUMS).read_text()) != _sums(entry / self.content):
                raise RecordError(f"{entry}: differs from what was written")
            found = reader(entry / self.content)
        except (OSError, ValueError, RecordError):
            _remove(entry)
            return None
        with suppress(OSError):
            os.utime(entry)
        return found

    def write(self, key: str, writer: Callable[[Path], None]) -> None:
        """Keep what `writer` puts into the folder that it is given; forget the longest unused beyond `cap`. Warns instead of failing."""
        entry = self.folder / key
        try:
            # Where another process has put the same first, that one stays: it is as good.
            with folders.whole(entry) as draft:
                writer(draft / self.content)
                (draft / _SUMS).write_text(json.dumps(_sums(draft / self.content)))
        except StorageError as error:
            # The folder, not the entry, is what a user can cure, and what is worth saying once.
            self.warn(f"{self.what} is not kept: {str(error).replace(str(entry), str(self.folder))}")
        if not self._room_for(entry):
            self._evict(keep=entry)

    def usage(self) -> tuple[int, int]:
        """Entries and bytes."""
        sizes = [_size(entry) for entry in self._entries()]
        return len(sizes), sum(sizes)

    def _entries(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.is_dir()]
        except OSError:
            return []

    def _room_for(self, entry: Path) -> bool:
        """Whether `entry`, just written, is known to leave all entries within `cap`: looking at every one at each write costs more than writing.

        Their bytes, and when they were counted, stand in a file beside them. Processes that write it at the same time make it a little wrong,
        until they are counted again, which is before a draft that is abandoned now is old enough to go.
        """
        try:
            total, counted = map(float, self._account.read_text().split())
            total += _size(entry)
        except (OSError, ValueError):
            return False
        self._note(total, counted)
        return total <= self.cap and time.time() - counted < _ABANDONED

    def _note(self, total: float, counted: float) -> None:
        with suppress(OSError):
            self._account.write_text(f"{total:.0f} {counted:.0f}")

    @property
    def _account(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}-bytes")

    def _evict(self, keep: Path) -> None:
        """Remove abandoned drafts, then the longest unused entries until the rest is within `cap`. `keep` stays in any case."""
        used: list[tuple[float, int, Path]] = []
        for entry in self._entries():
            try:
                age = entry.stat().st_mtime
            except OSError:
                continue
            if entry.name.startswith("."):
                if time.time() - age > _ABANDONED:
                    _remove(entry)
            else:
                used.append((age, _size(entry), entry))
        total = sum(size for _, size, _ in used)
        for _, size, entry in sorted(used):
            if total <= self.cap:
                break
            if entry != keep:
                _remove(entry)
                total -= size
        self._note(total, time.time())


def _sums(folder: Path) -> dict[str, str]:
    # Parquet has no checksum of its own here: a flipped bit could pass as a number.
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _size(entry: Path) -> int:
    total = 0
    for file in entry.rglob("*"):
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total


def _remove(entry: Path) -> None:
    # Renamed first, so that nobody finds half of it.
    try:
        doomed = entry.with_name(f".doomed-{os.getpid()}-{entry.name[-40:]}")
        os.replace(entry, doomed)
    except OSError:
        doomed = entry
    shutil.rmtree(doomed, ignore_errors=True)
