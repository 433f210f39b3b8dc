"""What the laws share whose constants a profile holds: they can be priced under any profile, so that one can be fitted to measured kernels."""

from __future__ import annotations

import abc
from typing import ClassVar, Literal

from membound.cost.law import Kernels, Law, Priced
from membound.cost.profile import Profile, profile_of
from membound.spec.machine import Gpu


class Calibrated(Law, abc.ABC):
    """A family of kernels with rates of its own in a profile."""

    efficiency_of: ClassVar[Literal["memory", "compute"]] = "memory"
    """Which bound the rates' efficiency is a share of."""

    def price(self, kernels: Kernels, gpu: Gpu) -> Priced:
        return self.priced(kernels, gpu, profile_of(gpu))

    @abc.abstractmethod
    def rates(self, kernels: Kernels) -> list[str]:
        """Name of each kernel's rate in the profile; [n]."""

    @abc.abstractmethod
    def priced(self, kernels: Kernels, gpu: Gpu, profile: Profile) -> Priced:
        """Times on `gpu` if `profile` were its own."""
