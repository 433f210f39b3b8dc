"""Energy: a counter since the driver was loaded, in a call of its own, because it can be dear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from membound.measure.sensors.base import Answer, Card, Sensor, Validity, bad, good
from membound.measure.sensors.nvml import Nvml, Refused, validity_of
from membound.measure.sensors.nvml_fields import NOT_AVAILABLE

# NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION (nvidia-ml-py 13.615.71), in mJ.
_FIELD: Final = (83, 0)
_MILLI: Final = 1e-3
# New every 0.1 s on an H100 and an H200 (validation/h200/probes.json), whose curve tells no more by being asked at every tick, s.
_EVERY: Final = 0.1
# It is used as a difference: only the ends of a window hang on how often it is asked. Where a call is dear (5 ms on an H100 and an H200 in virtual
# machines, validation/h200/probes.json), once a second is often enough, and every four seconds the least, s.
_ENOUGH: Final = 1.0
_LONGEST: Final = 4.0


class NvmlEnergy(Sensor):
    """Energy in J, in whole mJ, and no finer in time than it is asked."""

    def __init__(self, nvml: Nvml, gpu: int, every: float) -> None:
        self._nvml = nvml
        self._gpu = gpu
        source = "NVML field 83: whole mJ since the driver was loaded, in time no finer than it is asked"
        # A lane of its own: calls of more than a tick were seen.
        self.card = Card(
            "nvml.energy", "nvml", source, "gpu", gpu, ("energy",), max(every, _EVERY), period=None, lane="energy", enough=_ENOUGH, longest=_LONGEST
        )  # fmt: skip

    def read(self) -> Sequence[Answer]:
        try:
            ((code, value, _),) = self._nvml.fields(self._gpu, [_FIELD])
        except Refused as refused:
            return (bad(refused.validity),)
        known = code == 0 and value not in NOT_AVAILABLE
        return (good(value * _MILLI) if known else bad(validity_of(code) or Validity.SENTINEL),)
