"""True HBM traffic, reads and writes apart, on the 20 ms grid: performance-monitor sampling.

It holds the GPU's clocks while it runs, so that a recording with it says nothing about time and power: a repetition of its own, asked for by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from membound.measure.sensors.base import Answer, Card, Sensor, Validity, bad, good
from membound.measure.sensors.doors import PmSample, PmSession
from membound.measure.sensors.nvml import Nvml, Refused

CURVES: Final = ("hbm.read", "hbm.write", "hbm.utilisation")


@final
class Pm(Sensor):
    """Bytes read and written per second, and their share of the peak at the present memory clock."""

    def __init__(self, session: PmSession, nvml: Nvml, gpu: int, every: float) -> None:
        """Raises `Refused` where the driver does not tell the width of the memory bus."""
        self._session = session
        self._nvml = nvml
        self._gpu = gpu
        self._bus = int(nvml.ask("memory_bus", gpu))
        self._ended: int | None = None
        self.card = Card(
            "cupti.pm", "pm", "CUPTI PM sampling, dram__bytes_read.sum and dram__bytes_write.sum", "gpu", gpu, CURVES, every, period=every,
            window=True, lane="pm", longest=0.0,
        )  # fmt: skip

    def read(self) -> Sequence[Answer]:
        try:
            samples = self._session.samples()
            clock = 1e6 * float(self._nvml.ask("clock.memory", self._gpu))
        except Refused as refused:
            return [bad(refused.validity)] * len(CURVES)
        except RuntimeError:
            return [bad(Validity.ERROR)] * len(CURVES)
        return self._mean(samples, clock)

    def _mean(self, samples: list[PmSample], clock: float) -> Sequence[Answer]:
        # The very first interval's beginning is not set: it would last as long as the machine has been up.
        usable = [] if self._ended is None else samples
        self._ended = samples[-1][1] if samples else self._ended
        seconds = sum(end - start for start, end, _, _ in usable) * 1e-9
        if seconds <= 0:
            return ()
        read = sum(each[2] for each in usable) / seconds
        written = sum(each[3] for each in usable) / seconds
        # Two transfers per clock and pin: double data rate.
        peak = clock * 2 * self._bus / 8
        return good(read), good(written), good((read + written) / peak)

    def close(self) -> None:
        self._session.close()
