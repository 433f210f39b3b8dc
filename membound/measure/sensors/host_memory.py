"""Host memory in use: what the kernel could not give to a new process without swapping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from membound.measure.sensors.base import Answer, Card, Sensor, Validity, bad, good
from membound.measure.sensors.files import Files

_MEMINFO: Final = "/proc/meminfo"
# The file says kB and means 1024 bytes (proc_meminfo(5)).
_KB: Final = 1024


class HostMemory(Sensor):
    """MemTotal less MemAvailable: page cache does not count, pinned memory does."""

    def __init__(self, files: Files, every: float) -> None:
        self._files = files
        self.card = Card("host.memory", "kernel", f"{_MEMINFO}, MemTotal less MemAvailable", "host", 0, ("memory.used",), every, period=None)

    def read(self) -> Sequence[Answer]:
        try:
            table = meminfo(self._files)
            return [good(table["MemTotal"] - table["MemAvailable"])]
        except (OSError, KeyError):
            return [bad(Validity.ERROR)]


def meminfo(files: Files) -> dict[str, float]:
    """/proc/meminfo by name, B. Raises `OSError`."""
    lines = [line.partition(":") for line in files.text(_MEMINFO).split("\n")]
    return {name: float(rest.split()[0]) * _KB for name, _, rest in lines if rest.strip().endswith("kB")}
