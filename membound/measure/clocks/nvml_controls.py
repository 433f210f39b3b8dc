"""The only place that names NVML's functions for setting clocks."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from membound.measure.clocks.calls import Answer, Call
from membound.measure.clocks.consent import Controls
from membound.measure.clocks.refusals import GpuLostError

_MEGA: Final = 1_000_000


class NvmlControls(Controls):
    """Sets clocks of the GPUs of this machine; `handle` gives NVML's handle of a GPU by its UUID."""

    def __init__(self, handle: Callable[[str], Any], nvml: ModuleType) -> None:
        self._handle = handle
        self._nvml = nvml

    def perform(self, call: Call) -> Answer:
        nvml, handle, clocks = self._nvml, self._handle(call.uuid), [clock // _MEGA for clock in call.clocks]
        try:
            match call.name:
                case "lock_memory":
                    nvml.nvmlDeviceSetMemoryLockedClocks(handle, clocks[0], clocks[0])
                case "reset_memory":
                    nvml.nvmlDeviceResetMemoryLockedClocks(handle)
                case "lock_core":
                    nvml.nvmlDeviceSetGpuLockedClocks(handle, clocks[0], clocks[0])
                case "reset_core":
                    nvml.nvmlDeviceResetGpuLockedClocks(handle)
                case "set_applications":
                    nvml.nvmlDeviceSetApplicationsClocks(handle, clocks[0], clocks[1])
                case "reset_applications":
                    nvml.nvmlDeviceResetApplicationsClocks(handle)
        except nvml.NVMLError as error:
            if error.value == nvml.NVML_ERROR_GPU_IS_LOST:
                raise GpuLostError(call.uuid) from None
            # NVML's own words for a denial are "Insufficient Permissions".
            return Answer(int(error.value), str(error))
        return Answer(0)
