"""Memory in use on the GPU, without what the driver keeps back: read through, new at every tick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from membound.measure.sensors.base import Answer, Card, good
from membound.measure.sensors.nvml import Nvml
from membound.measure.sensors.nvml_call import NvmlCalls

# What a caching allocator takes of the driver changes seldom once a job runs, and its own statistics are told at every tick by the job itself. Where
# a call is dear (it waits for locks of the driver that the job holds: 0.4 ms on two H200s), so often is enough, and so seldom the least, s.
_ENOUGH: Final = 0.1
_LONGEST: Final = 0.2


class NvmlMemory(NvmlCalls):
    """Used memory by the second version of the call: the first counts the driver's own reserve in."""

    calls = ("memory",)

    def __init__(self, nvml: Nvml, gpu: int, every: float) -> None:
        super().__init__(nvml, gpu)
        source = "nvmlDeviceGetMemoryInfo_v2, used"
        self.card = Card("nvml.memory", "nvml", source, "gpu", gpu, ("memory.used",), every, period=None, enough=_ENOUGH, longest=_LONGEST)

    def answers(self, call: str, raw: Any) -> Sequence[Answer]:
        _, _, _, used = raw
        return (good(float(used)),)
