"""What sensors of one plain NVML call have in common."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from membound.measure.sensors.base import Answer, Sensor, bad
from membound.measure.sensors.nvml import Nvml, Refused


class NvmlCalls(Sensor):
    """Asks one or a few calls of one GPU; a refusal of any is the answer for the curves that hang on it."""

    def __init__(self, nvml: Nvml, gpu: int) -> None:
        self._nvml = nvml
        self._gpu = gpu

    @property
    @abc.abstractmethod
    def calls(self) -> tuple[str, ...]:
        """Names of the calls, in order."""

    @abc.abstractmethod
    def answers(self, call: str, raw: Any) -> Sequence[Answer]:
        """The answers of those curves that hang on `call`."""

    @property
    def _widths(self) -> tuple[int, ...]:
        """How many curves hang on each call: evenly many."""
        return (len(self.card.curves) // len(self.calls),) * len(self.calls)

    def read(self) -> Sequence[Answer]:
        found: list[Answer] = []
        for call, width in zip(self.calls, self._widths, strict=True):
            try:
                found += self.answers(call, self._nvml.ask(call, self._gpu))
            except Refused as refused:
                found += [bad(refused.validity)] * width
        return found
