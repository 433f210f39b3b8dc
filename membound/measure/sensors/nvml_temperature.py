"""Temperature of the die."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from membound.measure.sensors.base import Answer, Card, Validity, bad, good
from membound.measure.sensors.nvml import Nvml
from membound.measure.sensors.nvml_call import NvmlCalls

# Heat moves by less than a degree, the step of the reading, in this time (s): nothing is lost by asking no more often.
_EVERY: Final = 0.1
# Hotter than silicon works, degC: a sentinel.
_HOTTEST: Final = 150


class NvmlTemperature(NvmlCalls):
    """Die temperature in degC, whole degrees."""

    calls = ("temperature",)

    def __init__(self, nvml: Nvml, gpu: int, every: float) -> None:
        super().__init__(nvml, gpu)
        self.card = Card("nvml.temperature", "nvml", "nvmlDeviceGetTemperatureV", "gpu", gpu, ("temperature.gpu",), max(every, _EVERY), period=None)

    def answers(self, call: str, raw: Any) -> Sequence[Answer]:
        return (good(float(raw)) if 0 < raw < _HOTTEST else bad(Validity.SENTINEL),)
