"""The door to NVML: every question that sensors ask of the driver, in the driver's own numbers. A real driver is behind it, or a recorded one."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Final

from membound.measure.sensors.base import Validity

# Return codes of NVML (nvidia-ml-py 13.615.71, NVML_ERROR_*).
NOT_SUPPORTED: Final = 3
NO_PERMISSION: Final = 4
NOT_FOUND: Final = 6
DRIVER_NOT_LOADED: Final = 9
LIBRARY_NOT_FOUND: Final = 12
FUNCTION_NOT_FOUND: Final = 13
GPU_IS_LOST: Final = 15
RESET_REQUIRED: Final = 16
NO_DATA: Final = 21
UNKNOWN: Final = 999

_VALIDITY: Final = {
    NOT_SUPPORTED: Validity.NOT_SUPPORTED,
    FUNCTION_NOT_FOUND: Validity.NOT_SUPPORTED,
    NO_PERMISSION: Validity.NO_PERMISSION,
    GPU_IS_LOST: Validity.LOST,
    RESET_REQUIRED: Validity.LOST,
    NO_DATA: Validity.SENTINEL,
}

_WORDS: Final = {
    NOT_SUPPORTED: "not supported",
    NO_PERMISSION: "no permission",
    NOT_FOUND: "not found",
    DRIVER_NOT_LOADED: "the driver is not loaded",
    LIBRARY_NOT_FOUND: "no driver library",
    FUNCTION_NOT_FOUND: "the driver is older than this call",
    GPU_IS_LOST: "the GPU is lost",
    RESET_REQUIRED: "the GPU needs a reset",
    NO_DATA: "no data",
    UNKNOWN: "unknown error",
}


class Refused(Exception):
    """The driver refused a call with NVML's return code `code`."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"{_WORDS.get(code, 'refused')} (NVML return code {code})")

    @property
    def validity(self) -> Validity:
        """What that makes of the sample."""
        return validity_of(self.code)


def validity_of(code: int) -> Validity:
    """What NVML's return code makes of a sample."""
    return Validity.OK if code == 0 else _VALIDITY.get(code, Validity.ERROR)


FieldAnswer = tuple[int, float, int]
"""Return code, value, the driver's own time stamp in µs."""
MetricAnswer = tuple[int, float]
"""Return code and value of one GPM metric."""


class Nvml(abc.ABC):
    """Questions to the driver. Answers are in NVML's own units; a refusal is raised as `Refused`."""

    @abc.abstractmethod
    def ask(self, call: str, gpu: int = -1) -> Any:
        """The answer to `call`, one of `CALLS` (of `SYSTEM_CALLS` without a GPU)."""

    @abc.abstractmethod
    def fields(self, gpu: int, wanted: Sequence[tuple[int, int]]) -> list[FieldAnswer]:
        """Values of fields, given as (id, scope), in one call."""

    @abc.abstractmethod
    def gpm_take(self, gpu: int, into: Any = None) -> Any:
        """A snapshot of GPM's counters; `into` is one that is not needed any more."""

    @abc.abstractmethod
    def gpm_between(self, first: Any, second: Any, metrics: Sequence[int]) -> list[MetricAnswer]:
        """Means of the metrics between two snapshots."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let the driver go."""


SYSTEM_CALLS: Final = ("count", "driver", "nvml")
STATIC_CALLS: Final = (
    "name",
    "uuid",
    "pci_bus",
    "compute_capability",
    "power_limit",
    "supported_memory_clocks",
    "gpm_supported",
    "mig",
    "memory_bus",
)
"""What does not change while a job runs."""
LIVE_CALLS: Final = (
    "power_usage",
    "memory",
    "clock.core",
    "clock.memory",
    "temperature",
    "event_reasons",
    "utilisation",
    "pcie.sent",
    "pcie.received",
)
CALLS: Final = (*STATIC_CALLS, *LIVE_CALLS)
