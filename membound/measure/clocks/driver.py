"""What is asked of a driver about clocks. Reading only: `membound.measure.clocks.consent` tells how one gets to set anything."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

TOLERANCE: Final = 5_000_000
"""How far a clock that is read may lie from the one that is set, Hz. An H200 set to 3201 MHz reads 3199 to 3201 (awslabs/amazon-eks-ami#1985)."""


class SwitchType(enum.Enum):
    """How a memory clock may be switched; values are NVML's (NVML_FI_DEV_MCLK_SWITCH_TYPE, field 298)."""

    NEVER = 0
    DEFERRED = 1
    RUNTIME = 2
    UNKNOWN = -1


@dataclass(frozen=True)
class Switching:
    """What the driver says of switching one GPU's memory clock. `why` says why a type is unknown."""

    type: SwitchType
    interval: float
    """Time that must pass between two switches, s (field 299); 0 where the driver names none."""
    why: str = ""


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, its UUID, and whether it is split into instances (MIG)."""

    uuid: str
    name: str
    split: bool = False


@dataclass(frozen=True)
class Reading:
    """Clocks of one GPU at one moment, Hz, and the driver's reasons for them (`membound.measure.clocks.reasons`)."""

    memory: int
    core: int
    reasons: int

    def holds(self, memory: int) -> bool:
        """Whether the memory clock is `memory`, Hz, within `TOLERANCE`."""
        return abs(self.memory - memory) <= TOLERANCE


class Driver(ABC):
    """A driver, read only. All methods raise `GpuLostError` where the GPU is gone, and `NotSwitchableError` for a UUID that is not there."""

    @property
    @abstractmethod
    def address(self) -> str:
        """How another process opens the same driver: `membound.measure.clocks.opening`."""

    @abstractmethod
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs in the driver's order."""

    @abstractmethod
    def switching(self, uuid: str) -> Switching:
        """How the memory clock may be switched."""

    @abstractmethod
    def memory_clocks(self, uuid: str) -> tuple[int, ...]:
        """Supported memory clocks, Hz, highest first."""

    @abstractmethod
    def core_clocks(self, uuid: str, memory: int) -> tuple[int, ...]:
        """Core clocks supported at the memory clock `memory`, Hz, highest first."""

    @abstractmethod
    def applications(self, uuid: str) -> tuple[int, int] | None:
        """Applications clocks as they are set, memory and core, Hz; None where this driver has them no more."""

    @abstractmethod
    def processes(self, uuid: str) -> tuple[int, ...]:
        """Process ids of the programs that use the GPU."""

    @abstractmethod
    def read(self, uuid: str) -> Reading:
        """The clocks now."""
