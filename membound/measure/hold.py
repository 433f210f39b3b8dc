"""Who works on a recording: each of its processes holds a lock on a file beside the rings, which the kernel lets go of however the process ends.

Process numbers would not do: another container may share the memory and count its processes anew, and a number may be somebody else's by now.
The same lock, held alone, keeps two processes from storing the same rest at the same time. A child that the owner forks (a data loader's worker)
holds it too, so that a rest is stored once that one has ended as well.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Self

_FILE: Final = "lock"


class Hold:
    """The lock of the shared folder of one recording, held until `release` or the end of the process."""

    def __init__(self, file: int) -> None:
        self._file = file

    @classmethod
    def first(cls, shared: Path) -> Self:
        """As the owner, who makes the file. Raises `OSError`."""
        return cls._of(shared, os.O_CREAT | os.O_EXCL, fcntl.LOCK_SH)

    @classmethod
    def with_others(cls, shared: Path) -> Self:
        """As one more of the recording's processes. Raises `OSError` where it is gone, or being swept up."""
        return cls._of(shared, 0, fcntl.LOCK_SH)

    @classmethod
    def alone(cls, shared: Path) -> Self:
        """As the one who sweeps it up. Raises `OSError` where anybody works on it, or sweeps it already."""
        return cls._of(shared, 0, fcntl.LOCK_EX)

    @classmethod
    def _of(cls, shared: Path, flags: int, how: int) -> Self:
        file = os.open(shared / _FILE, os.O_RDWR | flags, 0o600)
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            if not os.fstat(file).st_nlink:
                raise FileNotFoundError(errno.ENOENT, "given back in the meantime", str(shared))
        except OSError:
            os.close(file)
            raise
        return cls(file)

    def release(self) -> None:
        """Let go."""
        os.close(self._file)
