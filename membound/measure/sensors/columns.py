"""Columns of the sampler's tables: the curves of `membound.run.series` that sensors give, in the order in which rows hold them."""

from __future__ import annotations

from typing import Final

# Kept apart from membound.run.series, which imports pyarrow: the sampler's process has no use for that. A test holds the two together.
GPU: Final = (
    "busy",
    "hbm.read",
    "hbm.write",
    "hbm.utilisation",
    "memory.used",
    "power",
    "power.average",
    "energy",
    "memory.power",
    "clock.core",
    "clock.memory",
    "temperature.gpu",
    "temperature.hbm",
    "pcie.h2d",
    "pcie.d2h",
    "nvlink.sent",
    "nvlink.received",
    "sm.utilisation",
    "tensor.utilisation",
    "memory.busy",
    "throttle",
)
HOST: Final = ("cpu.utilisation", "memory.used", "memory.bandwidth", "power", "nvme.read", "nvme.write")
TABLES: Final = {"gpu": GPU, "host": HOST}
