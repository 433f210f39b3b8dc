"""NVIDIA's driver through NVML, read only. `nvml_controls` holds the calls that set."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Final

from membound.measure.clocks.consent import Controls, Settable
from membound.measure.clocks.driver import Gpu, Reading, Switching, SwitchType
from membound.measure.clocks.refusals import ClockError, GpuLostError, NotSwitchableError

ADDRESS: Final = "nvml"

# NVML_FI_DEV_MCLK_SWITCH_TYPE, NVML_FI_DEV_MCLK_MIN_SWITCH_INTERVAL_MILLISECONDS: pynvml.py of nvidia-ml-py 13.615.71.
_SWITCH_TYPE, _SWITCH_INTERVAL = 298, 299
_MEGA: Final = 1_000_000


class NvmlDriver(Settable):
    """The driver of this machine. Raises `NotSwitchableError` where there is none, or no nvidia-ml-py."""

    def __init__(self) -> None:
        try:
            self._nvml: ModuleType = importlib.import_module("pynvml")
        except ImportError:
            raise NotSwitchableError(
                "the package nvidia-ml-py is not installed, without which no driver can be asked: pip install nvidia-ml-py"
            ) from None
        try:
            self._nvml.nvmlInit()
        except self._nvml.NVMLError as error:
            raise NotSwitchableError(f"no NVIDIA driver answers here ({error}): a sweep can be predicted") from None

    @property
    def address(self) -> str:
        return ADDRESS

    def gpus(self) -> tuple[Gpu, ...]:
        return tuple(self._gpu(self._ask("nvmlDeviceGetHandleByIndex", None, index)) for index in range(self._ask("nvmlDeviceGetCount", None)))

    def switching(self, uuid: str) -> Switching:
        answers = self._ask("nvmlDeviceGetFieldValues", uuid, self.handle(uuid), [_SWITCH_TYPE, _SWITCH_INTERVAL])
        kind, interval = answers[0], answers[1]
        # Both are small whole numbers, which read the same from any whole-number member of NVML's union.
        wait = interval.value.uiVal / 1e3 if interval.nvmlReturn == 0 else 0.0
        if kind.nvmlReturn != 0:
            return Switching(SwitchType.UNKNOWN, wait, f"field {_SWITCH_TYPE}: {self._nvml.NVMLError(kind.nvmlReturn)}")
        known = {each.value for each in SwitchType if each is not SwitchType.UNKNOWN}
        if kind.value.uiVal not in known:
            return Switching(SwitchType.UNKNOWN, wait, f"field {_SWITCH_TYPE}: {kind.value.uiVal}")
        return Switching(SwitchType(kind.value.uiVal), wait)

    def memory_clocks(self, uuid: str) -> tuple[int, ...]:
        found = self._try("nvmlDeviceGetSupportedMemoryClocks", uuid, self.handle(uuid)) or ()
        return tuple(sorted((clock * _MEGA for clock in found), reverse=True))

    def core_clocks(self, uuid: str, memory: int) -> tuple[int, ...]:
        found = self._try("nvmlDeviceGetSupportedGraphicsClocks", uuid, self.handle(uuid), memory // _MEGA) or ()
        return tuple(sorted((clock * _MEGA for clock in found), reverse=True))

    def applications(self, uuid: str) -> tuple[int, int] | None:
        kinds = self._nvml.NVML_CLOCK_MEM, self._nvml.NVML_CLOCK_GRAPHICS
        memory, core = (self._try("nvmlDeviceGetApplicationsClock", uuid, self.handle(uuid), kind) for kind in kinds)
        return None if memory is None or core is None else (memory * _MEGA, core * _MEGA)

    def processes(self, uuid: str) -> tuple[int, ...]:
        found = self._ask("nvmlDeviceGetComputeRunningProcesses", uuid, self.handle(uuid))
        return tuple(sorted(process.pid for process in found))

    def read(self, uuid: str) -> Reading:
        handle = self.handle(uuid)
        memory = self._ask("nvmlDeviceGetClockInfo", uuid, handle, self._nvml.NVML_CLOCK_MEM)
        core = self._ask("nvmlDeviceGetClockInfo", uuid, handle, self._nvml.NVML_CLOCK_SM)
        # The older name is the one that drivers of all ages export.
        reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", uuid, handle)
        return Reading(memory * _MEGA, core * _MEGA, reasons)

    def handle(self, uuid: str) -> Any:
        """NVML's handle of the GPU."""
        try:
            return self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        except self._nvml.NVMLError as error:
            if error.value == self._nvml.NVML_ERROR_GPU_IS_LOST:
                raise GpuLostError(uuid) from None
            raise NotSwitchableError(f"{uuid}: no such GPU here ({error})") from None

    def _controls(self) -> Controls:
        from membound.measure.clocks.nvml_controls import NvmlControls

        return NvmlControls(self.handle, self._nvml)

    def _gpu(self, handle: Any) -> Gpu:
        uuid: str = self._ask("nvmlDeviceGetUUID", None, handle)
        mode = self._try("nvmlDeviceGetMigMode", uuid, handle)
        return Gpu(uuid, self._ask("nvmlDeviceGetName", uuid, handle), split=mode is not None and mode[0] == 1)

    def _try(self, name: str, uuid: str | None, *arguments: Any) -> Any:
        """The answer of the reading function `name`, or None where board or driver does not have it."""
        nvml = self._nvml
        absent = {nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_DEPRECATED, nvml.NVML_ERROR_INVALID_ARGUMENT}
        try:
            return vars(nvml)[name](*arguments)
        except nvml.NVMLError as error:
            if error.value in absent:
                return None
            raise self._refused(error, name, uuid) from None

    def _ask(self, name: str, uuid: str | None, *arguments: Any) -> Any:
        try:
            return vars(self._nvml)[name](*arguments)
        except self._nvml.NVMLError as error:
            raise self._refused(error, name, uuid) from None

    def _refused(self, error: Any, name: str, uuid: str | None) -> ClockError:
        if error.value == self._nvml.NVML_ERROR_GPU_IS_LOST and uuid is not None:
            return GpuLostError(uuid)
        return NotSwitchableError(f"{uuid or 'driver'}: {name}: {error}")
