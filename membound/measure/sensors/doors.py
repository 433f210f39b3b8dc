"""The doors through which sensors reach a machine. Two kinds of machine stand behind them: this one, and recorded ones."""

from __future__ import annotations

import abc

from membound.measure.sensors.files import Files
from membound.measure.sensors.nvml import Nvml

PmSample = tuple[int, int, float, float]
"""Start and end of an interval in ns of the GPU's clock, bytes read, bytes written."""


class PmSession(abc.ABC):
    """Performance-monitor sampling of one GPU, under way."""

    @abc.abstractmethod
    def samples(self) -> list[PmSample]:
        """The intervals that ended since the last call. Raises `RuntimeError` for what CUPTI refuses."""

    @abc.abstractmethod
    def close(self) -> None:
        """End it: the GPU's clocks are free again."""


class Counter(abc.ABC):
    """A hardware counter of the kernel's perf events, counting."""

    @abc.abstractmethod
    def count(self) -> int:
        """Events so far. Raises `OSError`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Stop counting."""


class Doors(abc.ABC):
    """One machine, as sensors see it."""

    @property
    @abc.abstractmethod
    def files(self) -> Files:
        """The kernel's own files."""

    @abc.abstractmethod
    def nvml(self) -> Nvml:
        """The driver. Raises `Refused` where there is none, `ImportError` without the package."""

    @abc.abstractmethod
    def pm(self, gpu: int, every: float) -> PmSession:
        """Start counting HBM bytes on `gpu`. Raises `ImportError`, `PermissionError`, `ValueError`, `RuntimeError`."""

    @abc.abstractmethod
    def counter(self, kind: int, config: int, cpu: int) -> Counter:
        """Start a counter of the kernel's event source `kind`, on the core `cpu`. Raises `OSError`."""
