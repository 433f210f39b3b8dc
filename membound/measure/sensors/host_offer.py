"""Sensors of the host, and why those are missing that are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from membound.measure.sensors.base import Gap, Sensor, Validity
from membound.measure.sensors.doors import Doors
from membound.measure.sensors.host_bandwidth import HostBandwidth
from membound.measure.sensors.host_cpu import HostCpu
from membound.measure.sensors.host_drives import HostDrives
from membound.measure.sensors.host_memory import HostMemory
from membound.measure.sensors.host_power import HostPower

_PERF_CURE: Final = "sudo sysctl kernel.perf_event_paranoid=0, or run with CAP_PERFMON"
_RAPL_CURE: Final = "sudo chmod -R o+rX /sys/class/powercap/intel-rapl*/ (the counters are root's since CVE-2020-8694), or run as root"
# How each is opened, its curves, and what lets this user read them.
_OPENERS: Final[tuple[tuple[Callable[[Doors, float], Sensor], tuple[str, ...], str], ...]] = (
    (lambda doors, every: HostCpu(doors.files, every), ("cpu.utilisation",), ""),
    (lambda doors, every: HostMemory(doors.files, every), ("memory.used",), ""),
    (HostBandwidth, ("memory.bandwidth",), _PERF_CURE),
    (lambda doors, every: HostPower(doors.files, every), ("power",), _RAPL_CURE),
    (lambda doors, every: HostDrives(doors.files, every), ("nvme.read", "nvme.write"), ""),
)
_HIDDEN: Final = "virtual machines hide these counters: measure on the host itself"


def host_sensors(doors: Doors, every: float) -> tuple[list[Sensor], list[Gap]]:
    """What can be opened, and what cannot."""
    sensors: list[Sensor] = []
    gaps: list[Gap] = []
    for opener, curves, permit in _OPENERS:
        try:
            sensors.append(opener(doors, every))
        except LookupError as error:
            gaps.append(Gap("host", 0, curves, Validity.NOT_SUPPORTED, str(error), _HIDDEN if permit else ""))
        except PermissionError as error:
            gaps.append(Gap("host", 0, curves, Validity.NO_PERMISSION, f"not permitted ({error.strerror})", permit))
        except OSError as error:
            gaps.append(Gap("host", 0, curves, Validity.ERROR, str(error), ""))
    return sensors, gaps
