"""Power of the processors' packages and, where the platform tells it, of the DIMMs: RAPL, through the kernel's powercap files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from membound.measure.sensors.base import Answer, Card, Sensor, Validity, bad, good
from membound.measure.sensors.files import Files

# Kernel documentation, power/powercap: zones intel-rapl:N are packages (AMD's too), intel-rapl:N:M what is in them.
_NAMES: Final = "/sys/class/powercap/intel-rapl:*/name"
_MICRO: Final = 1e-6


class HostPower(Sensor):
    """Sum of packages and DIMMs, mean over the time since the last reading."""

    def __init__(self, files: Files, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises `LookupError` where the kernel shows no such zone, `PermissionError` where its counters may not be read."""
        self._files = files
        self._clock = clock
        zones = {path.removesuffix("/name"): files.text(path).strip() for path in files.find(_NAMES)}
        self._zones = {zone: name for zone, name in zones.items() if name.startswith("package") or name == "dram"}
        if not self._zones:
            raise LookupError("the kernel shows no RAPL zone")
        self._wraps = {zone: int(files.text(f"{zone}/max_energy_range_uj")) for zone in self._zones}
        self._last = (clock(), self._energies())
        source = f"RAPL: {', '.join(sorted(self._zones.values()))}"
        # Intel's counters move every millisecond (Intel SDM, volume 3, RAPL interfaces).
        self.card = Card("host.power", "rapl", source, "host", 0, ("power",), every, period=0.001, window=True)

    def _energies(self) -> dict[str, int]:
        return {zone: int(self._files.text(f"{zone}/energy_uj")) for zone in self._zones}

    def read(self) -> Sequence[Answer]:
        try:
            now = (self._clock(), self._energies())
        except PermissionError:
            return [bad(Validity.NO_PERMISSION)]
        except (OSError, ValueError):
            return [bad(Validity.ERROR)]
        before, self._last = self._last, now
        seconds = now[0] - before[0]
        # The counters wrap around, about once a minute on a busy package.
        used = sum((now[1][zone] - before[1][zone]) % (self._wraps[zone] + 1) for zone in self._zones)
        return [good(used * _MICRO / seconds)] if seconds > 0 else []
