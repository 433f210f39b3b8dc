"""The door to the kernel's own files: /proc and /sys of this machine, or texts that were recorded."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path


class Files(abc.ABC):
    """Small texts that the kernel makes up when they are read."""

    @abc.abstractmethod
    def text(self, path: str) -> str:
        """What stands in `path`. Raises `OSError`."""

    @abc.abstractmethod
    def data(self, path: str) -> bytes:
        """The same as bytes. Raises `OSError`."""

    @abc.abstractmethod
    def find(self, pattern: str) -> Sequence[str]:
        """Paths that match, such as /sys/class/powercap/*/name, sorted."""


class RealFiles(Files):
    """Those of this machine."""

    def text(self, path: str) -> str:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def data(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def find(self, pattern: str) -> Sequence[str]:
        return sorted(str(path) for path in Path("/").glob(pattern.removeprefix("/")))
