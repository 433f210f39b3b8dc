"""PCIe traffic by plain NVML: each call counts for 20 ms, and takes as long, so it has a thread of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from membound.measure.sensors.base import Answer, Card, good
from membound.measure.sensors.nvml import Nvml
from membound.measure.sensors.nvml_call import NvmlCalls

# One direction counts for 20 ms (NVML reference, nvmlDeviceGetPcieThroughput); both in turn, and a pause as long again for the driver's lock.
_EVERY: Final = 0.1
_WINDOW: Final = 0.02
# NVML tells KB/s; that they are of 1000 bytes is the reference's word.
_KB: Final = 1e3


class NvmlPcie(NvmlCalls):
    """Bytes per second from and to the host: what the GPU receives, and what it sends."""

    calls = ("pcie.received", "pcie.sent")

    def __init__(self, nvml: Nvml, gpu: int, every: float) -> None:
        super().__init__(nvml, gpu)
        self.card = Card(
            "nvml.pcie", "nvml", "nvmlDeviceGetPcieThroughput, 20 ms of each direction in turn", "gpu", gpu, ("pcie.h2d", "pcie.d2h"),
            max(every, _EVERY), period=_WINDOW, window=True, lane=f"pcie of GPU {gpu}",
        )  # fmt: skip

    def answers(self, call: str, raw: Any) -> Sequence[Answer]:
        return (good(raw * _KB),)
