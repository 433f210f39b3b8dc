"""A ring of rows in shared memory: one writer that never waits, readers that find out what they missed.

A row has a number; it is written between two copies of that number, and the ring's head (rows written so far) moves on last. A reader takes the
rows up to the head and keeps those whose two numbers are the expected one: a row that is being overwritten shows another. A writer that is
killed leaves at most one row half written, beyond the head. (The idea of numbering rows at both ends is that of a sequence lock.)

The file outlives the processes: who reads it later finds the rows that nobody stored.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Magic, curves, capacity, head.
_HEAD: Final = struct.Struct("<8sqqq")
_MAGIC: Final = b"mbring01"
_HEAD_AT: Final = 24
_ROWS_AT: Final = 64
NOT_READ: Final = -(2**31)
"""In `late` and `took`: no fast sensor was read at this tick."""


@dataclass(frozen=True)
class Layout:
    """What a row holds: number, tick, late and took (µs), key, a bit per curve that is new, values, validities, number again."""

    curves: int

    @property
    def struct(self) -> struct.Struct:
        """As `struct` packs it."""
        return struct.Struct(f"<QqiiqQ{self.curves}d{self.curves}B{-self.curves % 8}xQ")

    @property
    def dtype(self) -> np.dtype[Any]:
        """As numpy reads it."""
        import numpy as np

        fields = [("number", "<u8"), ("tick", "<i8"), ("late", "<i4"), ("took", "<i4"), ("key", "<i8"), ("fresh", "<u8")]
        curves: list[Any] = [("values", "<f8", (self.curves,)), ("codes", "u1", (self.curves,)), ("pad", "u1", (-self.curves % 8,)), ("again", "<u8")]
        return np.dtype([*fields, *curves])


class Ring:
    """The ring in the file `path`, seen from one process."""

    def __init__(self, path: Path) -> None:
        with open(path, "r+b") as file:
            self._page = mmap.mmap(file.fileno(), 0)
        magic, curves, self.capacity, _ = _HEAD.unpack_from(self._page, 0)
        if magic != _MAGIC:
            raise ValueError(f"{path}: no ring")
        self.layout = Layout(curves)
        self._pack = self.layout.struct
        self._size = self._pack.size

    @classmethod
    def create(cls, path: Path, curves: int, capacity: int) -> Self:
        """An empty ring of `capacity` rows. All of its memory is taken now, so that no later write can fail. Raises `OSError`."""
        size = _ROWS_AT + capacity * Layout(curves).struct.size
        draft = path.with_suffix(".draft")
        try:
            with open(draft, "wb") as file:
                file.write(_HEAD.pack(_MAGIC, curves, capacity, 0).ljust(_ROWS_AT, b"\0"))
                for start in range(_ROWS_AT, size, 1 << 20):
                    file.write(bytes(min(1 << 20, size - start)))
            draft.rename(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        return cls(path)

    @property
    def head(self) -> int:
        """Rows written so far."""
        head: int = struct.unpack_from("<q", self._page, _HEAD_AT)[0]
        return head

    def write(self, tick: int, late: int, took: int, key: int, fresh: int, values: Sequence[float], codes: Sequence[int]) -> None:
        """Write one row: the only writer calls this."""
        head = self.head
        self._pack.pack_into(
            self._page, _ROWS_AT + head % self.capacity * self._size, head, tick, late, took, key, fresh, *values, *codes, head
        )  # fmt: skip
        struct.pack_into("<q", self._page, _HEAD_AT, head + 1)

    def read(self, first: int) -> tuple[npt.NDArray[Any], int]:
        """Copies of the rows from number `first` on that are still there, in order, and how many are not."""
        import numpy as np

        head = self.head
        begin = max(first, head - self.capacity)
        rows = np.ndarray((self.capacity,), self.layout.dtype, self._page, _ROWS_AT)
        taken = rows[np.arange(begin, head) % self.capacity]
        del rows
        expected = np.arange(begin, head, dtype=np.uint64)
        whole = (taken["number"] == expected) & (taken["again"] == expected)
        kept = taken[whole]
        return kept, (head - first) - len(kept)

    def close(self) -> None:
        """Let go of the memory."""
        self._page.close()
