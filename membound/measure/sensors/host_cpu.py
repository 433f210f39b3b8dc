"""Share of the node's cores in use, from the kernel's own ledger of time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from membound.measure.sensors.base import Answer, Card, Sensor, Validity, bad, good
from membound.measure.sensors.files import Files

_STAT: Final = "/proc/stat"
# Columns of the line `cpu` (proc_stat(5)): user nice system idle iowait irq softirq steal; guest time is already in user's.
_IDLE: Final = (3, 4)
_COLUMNS: Final = 8


class HostCpu(Sensor):
    """1 is all cores busy all of the time since the last reading."""

    def __init__(self, files: Files, every: float) -> None:
        """Raises `OSError`."""
        self._files = files
        self._last = self._ledger()
        # The kernel counts in ticks of 1/100 s: USER_HZ (time(7)).
        self.card = Card("host.cpu", "kernel", _STAT, "host", 0, ("cpu.utilisation",), every, period=0.01, window=True)

    def _ledger(self) -> tuple[int, int]:
        columns = [int(each) for each in self._files.text(_STAT).split("\n", 1)[0].split()[1 : 1 + _COLUMNS]]
        return sum(columns), sum(columns[place] for place in _IDLE)

    def read(self) -> Sequence[Answer]:
        try:
            total, idle = self._ledger()
        except OSError:
            return [bad(Validity.ERROR)]
        (total_before, idle_before), self._last = self._last, (total, idle)
        passed = total - total_before
        # Idle time may run backwards by a tick: proc_stat(5) warns of it.
        return [good(min(1.0, max(0.0, 1 - (idle - idle_before) / passed)))] if passed > 0 else []
