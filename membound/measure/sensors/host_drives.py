"""Traffic of local drives: whole disks, not partitions, nor what is made of memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from membound.measure.sensors.base import Answer, Card, Sensor, Validity, bad, good
from membound.measure.sensors.files import Files

_DISKSTATS: Final = "/proc/diskstats"
# The file counts sectors of 512 B, whatever the drive's own are (kernel documentation, admin-guide/iostats).
_SECTOR: Final = 512
# Not drives: memory, or built on drives that are counted already.
_NO_DRIVES: Final = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd")


class HostDrives(Sensor):
    """Bytes read and written per second since the last reading, all drives together."""

    def __init__(self, files: Files, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises `OSError`, `LookupError` where there is no drive."""
        self._files = files
        self._clock = clock
        names = {path.split("/")[3] for path in files.find("/sys/block/*/size")}
        self._drives = {name for name in names if not name.startswith(_NO_DRIVES)}
        if not self._drives:
            raise LookupError("no drive of its own")
        self._last = (clock(), *self._bytes())
        source = f"{_DISKSTATS}: {', '.join(sorted(self._drives))}"
        self.card = Card("host.drives", "kernel", source, "host", 0, ("nvme.read", "nvme.write"), every, period=None, window=True)

    def _bytes(self) -> tuple[int, int]:
        rows = [line.split() for line in self._files.text(_DISKSTATS).split("\n") if line.strip()]
        mine = [row for row in rows if row[2] in self._drives]
        return sum(int(row[5]) for row in mine) * _SECTOR, sum(int(row[9]) for row in mine) * _SECTOR

    def read(self) -> Sequence[Answer]:
        try:
            now = (self._clock(), *self._bytes())
        except (OSError, ValueError, IndexError):
            return [bad(Validity.ERROR)] * 2
        before, self._last = self._last, now
        seconds = now[0] - before[0]
        return [good((now[place] - before[place]) / seconds) for place in (1, 2)] if seconds > 0 else []
