"""Sensors of one GPU, best first: performance monitors if asked for, then GPM, then plain NVML; and why the better ones are not to be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from membound.measure.sensors import columns, readiness
from membound.measure.sensors.base import Gap, Sensor, Validity
from membound.measure.sensors.doors import Doors
from membound.measure.sensors.gpm import METRICS, Gpm
from membound.measure.sensors.nvml import LIBRARY_NOT_FOUND, Nvml, Refused
from membound.measure.sensors.nvml_busy import NvmlBusy
from membound.measure.sensors.nvml_clocks import NvmlClocks
from membound.measure.sensors.nvml_energy import NvmlEnergy
from membound.measure.sensors.nvml_fields import NvmlFields
from membound.measure.sensors.nvml_memory import NvmlMemory
from membound.measure.sensors.nvml_pcie import NvmlPcie
from membound.measure.sensors.nvml_power import NvmlPower
from membound.measure.sensors.nvml_temperature import NvmlTemperature
from membound.measure.sensors.pm import CURVES as PM_CURVES
from membound.measure.sensors.pm import Pm

# In the order in which a thread asks them, all GPUs for each in turn: the memory in use comes last, because beside jobs its call was seen to wait for
# 1 to 40 ms in the mean (validation/h200/results-1.jsonl), which would hold up the others.
_PLAIN: Final[tuple[Callable[[Nvml, int, float], Sensor], ...]] = (
    NvmlFields, NvmlEnergy, NvmlPower, NvmlClocks, NvmlTemperature, NvmlBusy, NvmlMemory, NvmlPcie,
)  # fmt: skip
# Curves that GPM alone gives.
_GPM_ONLY: Final = tuple(curve for curve in METRICS if curve not in {"busy", "pcie.h2d", "pcie.d2h"})


def gpu_sensors(doors: Doors, nvml: Nvml, gpu: int, period: float, hbm: str) -> tuple[list[Sensor], list[Gap]]:
    """What can be opened on `gpu`, best first, and what cannot."""
    sensors: list[Sensor] = []
    gaps: list[Gap] = []
    for opened in (_pm(doors, nvml, gpu, period, hbm), _gpm(nvml, gpu, period)):
        if isinstance(opened, Gap):
            gaps.append(opened)
        else:
            sensors.append(opened)
    return [*sensors, *(sensor(nvml, gpu, period) for sensor in _PLAIN)], _without_better(sensors, gaps)


def _without_better(sensors: list[Sensor], gaps: list[Gap]) -> list[Gap]:
    """The gaps, less the curves that another sensor closes."""
    held = {curve for sensor in sensors for curve in sensor.card.curves}
    left = [(gap, tuple(curve for curve in gap.curves if curve not in held)) for gap in gaps]
    return [Gap(gap.table, gap.key, curves, gap.validity, gap.reason, gap.remedy) for gap, curves in left if curves]


def _pm(doors: Doors, nvml: Nvml, gpu: int, period: float, hbm: str) -> Sensor | Gap:
    if hbm != "pm":
        why = "true HBM traffic is counted by performance-monitor sampling alone, which holds the clocks: not asked for"
        return Gap("gpu", gpu, PM_CURVES, Validity.ABSENT, why, "a repetition of its own with --hbm pm")
    try:
        return Pm(doors.pm(gpu, period), nvml, gpu, period)
    except ImportError as error:
        why = readiness.not_installed() or f"CUPTI is not installed ({error})"
        return Gap("gpu", gpu, PM_CURVES, Validity.ABSENT, why, readiness.PACKAGE_CURE)
    except PermissionError:
        remedy = "load the driver with NVreg_RestrictProfilingToAdminUsers=0 (/etc/modprobe.d), or run with CAP_SYS_ADMIN"
        return Gap("gpu", gpu, PM_CURVES, Validity.NO_PERMISSION, "the driver lets administrators alone read performance counters", remedy)
    except (ValueError, RuntimeError, Refused) as error:
        return Gap("gpu", gpu, PM_CURVES, Validity.NOT_SUPPORTED, f"performance-monitor sampling: {error}", "")


def _gpm(nvml: Nvml, gpu: int, period: float) -> Sensor | Gap:
    try:
        # Under MIG a probe of GPM was seen to leave other queries failing: it is left alone there.
        if _mig(nvml, gpu):
            return Gap("gpu", gpu, _GPM_ONLY, Validity.NOT_SUPPORTED, "GPM is left alone while the GPU is partitioned (MIG)", "")
        if not nvml.ask("gpm_supported", gpu):
            return Gap("gpu", gpu, _GPM_ONLY, Validity.NOT_SUPPORTED, "this GPU has no GPM: it came with Hopper", "")
        return Gpm(nvml, gpu, period)
    except Refused as refused:
        remedy = "run as a user whom the driver permits, such as root" if refused.validity is Validity.NO_PERMISSION else ""
        return Gap("gpu", gpu, _GPM_ONLY, refused.validity, f"GPM: {refused}", remedy)


def _mig(nvml: Nvml, gpu: int) -> bool:
    try:
        return bool(nvml.ask("mig", gpu))
    except Refused:
        return False


def no_driver(error: Refused | ImportError) -> Gap:
    """Why there is no GPU to ask."""
    if isinstance(error, ImportError):
        reason, remedy = "the package nvidia-ml-py is not installed", "pip install nvidia-ml-py"
    elif error.code == LIBRARY_NOT_FOUND:
        reason, remedy = "no NVIDIA driver: libnvidia-ml.so.1 is not found", "install the NVIDIA driver, or give the container the GPU (--gpus all)"
    else:
        reason, remedy = f"the NVIDIA driver does not start: {error}", "nvidia-smi says more"
    return Gap("gpu", None, columns.GPU, Validity.ABSENT, reason, remedy)
