"""Core and memory clock, and what holds the clocks down: read through, new at every tick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from membound.measure.sensors.base import Answer, Card, good
from membound.measure.sensors.nvml import Nvml
from membound.measure.sensors.nvml_call import NvmlCalls

_CURVES: Final = {"clock.core": ("clock.core", 1e6), "clock.memory": ("clock.memory", 1e6), "event_reasons": ("throttle", 1.0)}

# The board changes its clock some 40 ms after its load did (validation/h200/clocks.json): where calls are dear, so often is enough, and so seldom the
# least, s.
_ENOUGH: Final = 0.04
_LONGEST: Final = 0.1


class NvmlClocks(NvmlCalls):
    """Clocks in Hz and the clock event reasons as the driver's bits."""

    calls = tuple(_CURVES)

    def __init__(self, nvml: Nvml, gpu: int, every: float) -> None:
        super().__init__(nvml, gpu)
        source = "nvmlDeviceGetClockInfo, nvmlDeviceGetCurrentClocksEventReasons"
        curves = tuple(curve for curve, _ in _CURVES.values())
        self.card = Card("nvml.clocks", "nvml", source, "gpu", gpu, curves, every, period=None, enough=_ENOUGH, longest=_LONGEST)

    def answers(self, call: str, raw: Any) -> Sequence[Answer]:
        return (good(raw * _CURVES[call][1]),)
