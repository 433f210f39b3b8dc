"""Power and the memory's temperature, in one batched call per GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from membound.measure.sensors.base import Answer, Card, Sensor, Validity, bad, good
from membound.measure.sensors.nvml import Nvml, Refused, validity_of

# Field ids and scopes of NVML (nvidia-ml-py 13.615.71): NVML_FI_DEV_POWER_INSTANT 186, NVML_FI_DEV_POWER_AVERAGE 185,
# NVML_FI_DEV_MEMORY_TEMP 82; NVML_POWER_SCOPE_GPU 0, NVML_POWER_SCOPE_MEMORY 2.
_MILLI: Final = 1e-3
# Curve: field, scope, SI units per unit of NVML's.
_FIELDS: Final = {
    "power": (186, 0, _MILLI),
    "power.average": (185, 0, _MILLI),
    "memory.power": (186, 2, _MILLI),
    "temperature.hbm": (82, 0, 1.0),
}
# Power is formed over a part of every 100 ms on A100 and H100: arXiv:2312.02741. The reference gives no periods for the others.
_PERIODS: Final = {"power": 0.1, "memory.power": 0.1}
# Half of that finds each new value in good time; it is never asked less often: power is what the grid is for.
_ENOUGH: Final = 0.05
# Hotter than any memory runs. Boards without a sensor there answer 0 or 2^63 - 1 (NVIDIA/dcgm-exporter#512, Syllo/nvtop#266).
_HOTTEST: Final = 150.0
NOT_AVAILABLE: Final = {2.0**32 - 1, 2.0**64 - 1, -1.0}
"""NVML_VALUE_NOT_AVAILABLE is -1: all bits set, as 32 or 64 of them."""


class NvmlFields(Sensor):
    """Power now (a window of about 25 ms in every 100 ms on Hopper: arXiv:2312.02741), its mean over a second, memory power and heat."""

    def __init__(self, nvml: Nvml, gpu: int, every: float) -> None:
        self._nvml = nvml
        self._gpu = gpu
        self._wanted = [(field, scope) for field, scope, _ in _FIELDS.values()]
        self._scales = [scale for _, _, scale in _FIELDS.values()]
        self._hbm = list(_FIELDS).index("temperature.hbm")
        source = "NVML fields 186, 185 and 82 in one call"
        self.card = Card(
            "nvml.fields", "nvml", source, "gpu", gpu, tuple(_FIELDS), every, period=None, enough=_ENOUGH, longest=_ENOUGH, own_periods=_PERIODS
        )  # fmt: skip

    def read(self) -> Sequence[Answer]:
        try:
            fields = self._nvml.fields(self._gpu, self._wanted)
        except Refused as refused:
            return [bad(refused.validity)] * len(_FIELDS)
        answers = [
            good(value * scale) if code == 0 and value not in NOT_AVAILABLE else bad(validity_of(code) or Validity.SENTINEL)
            for (code, value, _), scale in zip(fields, self._scales, strict=True)
        ]
        heat, validity = answers[self._hbm]
        if validity is Validity.OK and not 0 < heat < _HOTTEST:
            answers[self._hbm] = bad(Validity.SENTINEL)
        return answers
