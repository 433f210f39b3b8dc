"""NVML's two busy flags: shares of time in which a kernel ran, and in which memory was touched at all. The second is no bandwidth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from membound.measure.sensors.base import Answer, Card, Validity, bad, good
from membound.measure.sensors.nvml import Nvml
from membound.measure.sensors.nvml_call import NvmlCalls

# The driver forms them over 1/6 s to 1 s, by product (NVML reference, nvmlUtilization_t).
_PERIOD: Final = 1 / 6
# Half of that finds each new value in good time.
_EVERY: Final = 0.08


class NvmlBusy(NvmlCalls):
    """`busy` and `memory.busy` as the driver flags them."""

    calls = ("utilisation",)

    def __init__(self, nvml: Nvml, gpu: int, every: float) -> None:
        super().__init__(nvml, gpu)
        self.card = Card(
            "nvml.busy", "nvml_busy", "nvmlDeviceGetUtilizationRates", "gpu", gpu, ("busy", "memory.busy"), max(every, _EVERY), period=_PERIOD
        )

    def answers(self, call: str, raw: Any) -> Sequence[Answer]:
        return [good(share / 100) if 0 <= share <= 100 else bad(Validity.SENTINEL) for share in raw]
