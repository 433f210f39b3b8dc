"""Memory in use on the GPU, without what the driver keeps back: read through, new at every tick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from membound.measure.sensors.base import Answer, Card, good
from membound.measure.sensors.nvml import Nvml
from membound.measure.sensors.nvml_call import NvmlCalls


class NvmlMemory(NvmlCalls):
    """Used memory by the second version of the call: the first counts the driver's own reserve in."""

    calls = ("memory",)

    def __init__(self, nvml: Nvml, gpu: int, every: float) -> None:
        super().__init__(nvml, gpu)
        self.card = Card("nvml.memory", "nvml", "nvmlDeviceGetMemoryInfo_v2, used", "gpu", gpu, ("memory.used",), every, period=None)

    def answers(self, call: str, raw: Any) -> Sequence[Answer]:
        _, _, _, used = raw
        return (good(float(used)),)
