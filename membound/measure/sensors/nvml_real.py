"""The NVIDIA driver of this machine, through nvidia-ml-py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final, final

from membound.measure.sensors.nvml import FUNCTION_NOT_FOUND, FieldAnswer, MetricAnswer, Nvml, Refused


@final
class RealNvml(Nvml):
    """The driver of this machine, through nvidia-ml-py. Raises `Refused` where there is none, `ImportError` without the package."""

    def __init__(self) -> None:
        import pynvml

        self._n: ModuleType = pynvml
        self._error: type[Exception] = pynvml.NVMLError
        self._handles: dict[int, Any] = {}
        self._calls = calls(pynvml)
        self._guard(pynvml.nvmlInit)

    def ask(self, call: str, gpu: int = -1) -> Any:
        if gpu < 0:
            return self._guard(self._calls[call])
        return self._guard(self._calls[call], self._handle(gpu))

    def fields(self, gpu: int, wanted: Sequence[tuple[int, int]]) -> list[FieldAnswer]:
        answers = self._guard(self._n.nvmlDeviceGetFieldValues, self._handle(gpu), list(wanted))
        return [(each.nvmlReturn, getattr(each.value, _MEMBER.get(each.valueType, "ullVal")), each.timestamp) for each in answers]

    def gpm_take(self, gpu: int, into: Any = None) -> Any:
        sample = self._guard(self._n.nvmlGpmSampleAlloc) if into is None else into
        self._guard(self._n.nvmlGpmSampleGet, self._handle(gpu), sample)
        return sample

    def gpm_between(self, first: Any, second: Any, metrics: Sequence[int]) -> list[MetricAnswer]:
        request = self._n.c_nvmlGpmMetricsGet_t()
        request.version = self._n.NVML_GPM_METRICS_GET_VERSION
        request.sample1, request.sample2, request.numMetrics = first, second, len(metrics)
        for place, metric in enumerate(metrics):
            request.metrics[place].metricId = metric
        self._guard(self._n.nvmlGpmMetricsGet, request)
        return [(request.metrics[place].nvmlReturn, request.metrics[place].value) for place in range(len(metrics))]

    def close(self) -> None:
        self._guard(self._n.nvmlShutdown)

    def _handle(self, gpu: int) -> Any:
        if gpu not in self._handles:
            self._handles[gpu] = self._guard(self._n.nvmlDeviceGetHandleByIndex, gpu)
        return self._handles[gpu]

    def _guard(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._error as error:
            raise Refused(int(error.value)) from None  # type: ignore[attr-defined]
        except AttributeError:
            # The package is older than the call.
            raise Refused(FUNCTION_NOT_FOUND) from None


# Member of NVML's union of values, by its type's number (nvidia-ml-py 13.615.71, NVML_VALUE_TYPE_*).
_MEMBER: Final = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}


def calls(n: Any) -> dict[str, Callable[..., Any]]:
    """How each call of `membound.measure.sensors.nvml` is put to the package `n`."""
    return {
        "count": n.nvmlDeviceGetCount,
        "driver": n.nvmlSystemGetDriverVersion,
        "nvml": n.nvmlSystemGetNVMLVersion,
        "name": n.nvmlDeviceGetName,
        "uuid": n.nvmlDeviceGetUUID,
        "pci_bus": lambda h: _text(n.nvmlDeviceGetPciInfo(h).busId),
        "compute_capability": n.nvmlDeviceGetCudaComputeCapability,
        "power_limit": n.nvmlDeviceGetEnforcedPowerLimit,
        "supported_memory_clocks": n.nvmlDeviceGetSupportedMemoryClocks,
        "gpm_supported": lambda h: bool(n.nvmlGpmQueryDeviceSupport(h).isSupportedDevice),
        "mig": lambda h: n.nvmlDeviceGetMigMode(h)[0] == n.NVML_DEVICE_MIG_ENABLE,
        "memory_bus": n.nvmlDeviceGetMemoryBusWidth,
        **_live_calls(n),
    }


def _live_calls(n: Any) -> dict[str, Callable[..., Any]]:
    return {
        "power_usage": n.nvmlDeviceGetPowerUsage,
        "memory": lambda h: _memory(n, h),
        "clock.core": lambda h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM),
        "clock.memory": lambda h: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM),
        "temperature": lambda h: _newer(n, "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTemperature", h, n.NVML_TEMPERATURE_GPU),
        "event_reasons": lambda h: _newer(n, "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons", h),
        "utilisation": lambda h: _utilisation(n, h),
        "pcie.sent": lambda h: n.nvmlDeviceGetPcieThroughput(h, n.NVML_PCIE_UTIL_TX_BYTES),
        "pcie.received": lambda h: n.nvmlDeviceGetPcieThroughput(h, n.NVML_PCIE_UTIL_RX_BYTES),
    }


def _memory(n: Any, handle: Any) -> tuple[int, int, int, int]:
    # The second version tells what the driver keeps for itself apart from what is used.
    info = n.nvmlDeviceGetMemoryInfo(handle, version=n.nvmlMemory_v2)
    return info.total, info.reserved, info.free, info.used


def _utilisation(n: Any, handle: Any) -> tuple[int, int]:
    rates = n.nvmlDeviceGetUtilizationRates(handle)
    return rates.gpu, rates.memory


def _newer(n: Any, newer: str, older: str, *arguments: Any) -> int:
    """The newer of two calls, and the older where the driver, or the package, does not have it yet."""
    try:
        return int(getattr(n, newer)(*arguments))
    except (n.NVMLError_FunctionNotFound, AttributeError):
        return int(getattr(n, older)(*arguments))


def _text(raw: str | bytes) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw
