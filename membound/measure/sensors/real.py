"""The machine at hand."""

from __future__ import annotations

from typing import final

from membound.measure.sensors.cupti import CuptiSession
from membound.measure.sensors.doors import Counter, Doors, PmSession
from membound.measure.sensors.files import RealFiles
from membound.measure.sensors.nvml import Nvml
from membound.measure.sensors.nvml_real import RealNvml
from membound.measure.sensors.perf import PerfCounter


@final
class RealDoors(Doors):
    """Everything asked of the devices themselves."""

    files = RealFiles()

    def nvml(self) -> Nvml:
        return RealNvml()

    def pm(self, gpu: int, every: float) -> PmSession:
        return CuptiSession(gpu, every)

    def counter(self, kind: int, config: int, cpu: int) -> Counter:
        return PerfCounter(kind, config, cpu)
