"""An operator that no law knows, priced by its bytes. Its share of the step is counted and shown."""

from __future__ import annotations

from typing import final

from membound.cost.law import Kernels, Priced
from membound.cost.streaming import Streaming
from membound.spec.machine import Gpu


@final
class Unknown(Streaming):
    """Anything else: as a pointwise operation, with a band that says how little that means."""

    family = "pointwise"
    operators = frozenset()

    def knows(self, op: str) -> bool:
        return True

    def rates(self, kernels: Kernels) -> list[str]:
        return ["strided"] * len(kernels)

    def price(self, kernels: Kernels, gpu: Gpu) -> Priced:
        priced = super().price(kernels, gpu)
        return Priced(priced.seconds, priced.compute, priced.memory, priced.fixed, priced.band * 0 + 0.5)
