"""The driver's own counters of one GPU, by its C library, so that nothing need be installed. Reads only."""

from __future__ import annotations

import ctypes
from typing import Any

# nvml.h
_CLOCKS = {"sm": 1, "memory": 2}


class Nvml:
    """GPU `index` as NVML numbers them. Raises `OSError` where there is no driver."""

    def __init__(self, index: int = 0) -> None:
        self._library = ctypes.CDLL("libnvidia-ml.so.1")
        self._gpu = ctypes.c_void_p()
        self._call("nvmlInit_v2")
        self._call("nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(self._gpu))

    def energy(self) -> float:
        """J since the driver was loaded."""
        return self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong()) * 1e-3

    def limit(self) -> float:
        """Power limit in force, W."""
        return self._read("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint()) * 1e-3

    def clock(self, kind: str) -> int:
        """MHz now."""
        return self._read("nvmlDeviceGetClockInfo", ctypes.c_uint(), _CLOCKS[kind])

    def max_clock(self, kind: str) -> int:
        """MHz at most."""
        return self._read("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(), _CLOCKS[kind])

    def temperature(self) -> int:
        """Die, degC."""
        return self._read("nvmlDeviceGetTemperature", ctypes.c_uint(), 0)

    def driver(self) -> str:
        text = ctypes.create_string_buffer(96)
        self._call("nvmlSystemGetDriverVersion", text, 96)
        return text.value.decode()

    def _read(self, function: str, value: Any, *arguments: int) -> int:
        self._call(function, self._gpu, *arguments, ctypes.byref(value))
        return int(value.value)

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise OSError(f"{function} returned {status}")
