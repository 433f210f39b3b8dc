"""Power by the older call, where the driver does not tell it as a field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from membound.measure.sensors.base import Answer, Card, Validity, bad, good
from membound.measure.sensors.nvml import Nvml
from membound.measure.sensors.nvml_call import NvmlCalls

_MILLI: Final = 1e-3
# NVML_VALUE_NOT_AVAILABLE, -1, as 32 bits without a sign (nvidia-ml-py 13.615.71).
_NOT_AVAILABLE: Final = 2**32 - 1


class NvmlPower(NvmlCalls):
    """Power of the board: on Ampere and newer, but GA100, the mean of a second; on older boards, of the moment (NVML reference)."""

    calls = ("power_usage",)

    def __init__(self, nvml: Nvml, gpu: int, every: float) -> None:
        super().__init__(nvml, gpu)
        source = "nvmlDeviceGetPowerUsage: the mean of a second on Ampere and newer, but GA100"
        self.card = Card("nvml.power", "nvml", source, "gpu", gpu, ("power",), every, period=None)

    def answers(self, call: str, raw: Any) -> Sequence[Answer]:
        return (bad(Validity.SENTINEL) if raw == _NOT_AVAILABLE else good(raw * _MILLI),)
