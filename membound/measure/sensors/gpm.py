"""GPM, the GPU's own performance monitoring through NVML (Hopper and newer): true shares and rates, ten times a second and no faster."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Final

from membound.measure.sensors.base import Answer, Card, Sensor, Validity, bad, good
from membound.measure.sensors.nvml import Nvml, Refused, validity_of

# Two snapshots closer than this give values that are not valid: "100ms is a hard limitation" (NVIDIA/DCGM#310; NVML reference, GPM functions).
PERIOD: Final = 0.1
_PER_CENT: Final = 0.01
# GPM's rates are in MiB/s (nvidia-ml-py 13.615.71, beside NVML_GPM_METRIC_PCIE_TX_PER_SEC).
_MIB: Final = 2.0**20
# Curve: metric (nvidia-ml-py 13.615.71, NVML_GPM_METRIC_*), SI units per unit of GPM's. TX is what the GPU sends.
METRICS: Final = {
    "busy": (1, _PER_CENT),
    "sm.utilisation": (2, _PER_CENT),
    "tensor.utilisation": (5, _PER_CENT),
    "hbm.utilisation": (10, _PER_CENT),
    "pcie.d2h": (20, _MIB),
    "pcie.h2d": (21, _MIB),
    "nvlink.received": (60, _MIB),
    "nvlink.sent": (61, _MIB),
}
# A mean over two of its periods is as honest as one over one; asked less often still, totals stay right and peaks are flattened, s.
_ENOUGH: Final = 2 * PERIOD
_LONGEST: Final = 4.0
# A snapshot that came a little early would spoil the window; one that comes later only widens it.
_MARGIN: Final = 1.02


class Gpm(Sensor):
    """Means since the snapshot before: a rolling pair, its two buffers used in turn."""

    def __init__(self, nvml: Nvml, gpu: int, every: float) -> None:
        """Raises `Refused` where the GPU has no GPM or it is not permitted."""
        self._nvml = nvml
        self._gpu = gpu
        self._metrics = [metric for metric, _ in METRICS.values()]
        self._scales = [scale for _, scale in METRICS.values()]
        self._last = nvml.gpm_take(gpu)
        self._taken = time.monotonic()
        self._spare: Any = None
        self.card = Card(
            "nvml.gpm", "gpm", "NVML GPM, mean between two snapshots", "gpu", gpu, tuple(METRICS), max(every, PERIOD * _MARGIN),
            period=PERIOD, window=True, lane="gpm", enough=_ENOUGH, longest=_LONGEST,
        )  # fmt: skip

    def read(self) -> Sequence[Answer]:
        if time.monotonic() - self._taken < PERIOD:
            return ()
        try:
            now = self._nvml.gpm_take(self._gpu, self._spare)
            self._taken = time.monotonic()
            found = self._nvml.gpm_between(self._last, now, self._metrics)
        except Refused as refused:
            return [bad(refused.validity)] * len(METRICS)
        self._last, self._spare = now, self._last
        return self._trusted(
            [good(value * scale) if code == 0 else bad(validity_of(code)) for (code, value), scale in zip(found, self._scales, strict=True)]
        )

    def _trusted(self, answers: list[Answer]) -> list[Answer]:
        # A window that is not valid shows shares that are not numbers, and rates of 0 beside them: those zeros are not measured.
        shares = [value for (value, _), scale in zip(answers, self._scales, strict=True) if scale == _PER_CENT]
        if all(math.isnan(share) for share in shares):
            return [bad(validity or Validity.SENTINEL) for _, validity in answers]
        return [answer if math.isfinite(answer[0]) else bad(answer[1] or Validity.SENTINEL) for answer in answers]
