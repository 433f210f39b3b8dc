"""What bounds a kernel that does next to no arithmetic: its HBM bytes, its bytes through the L2, its elements, and the time to start and end.

Elements count where threads take them one by one: operands that are broadcast, cast, permuted or scattered are not loaded in wide steps, and the
index arithmetic of each becomes the bound (a bf16 tensor times a row: 400 elements a nanosecond on an H100, half of what HBM would allow).
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.calibrated import Calibrated
from membound.cost.law import Array, Kernels, Priced, soft_roofline
from membound.cost.profile import Profile
from membound.spec.machine import Gpu

# How softly one bound hands over to the other: a bf16 add of 25 MB out of HBM takes 10 us on an H100 where bandwidth and start alone give 9.5
# (validation/kernels/h100-sxm.csv).
SHARPNESS: Final = 4.0


@dataclass(frozen=True)
class _About:
    """What holds of n kernels on any GPU."""

    names: list[str]
    """Their rates in a profile."""
    which: npt.NDArray[np.int64]
    """Of these each kernel's; [n]."""
    through_l2: Array
    elements: Array
    launches: Array
    sharpness: Array


class Streaming(Calibrated, abc.ABC):
    """A family of kernels that read, do little, and write."""

    operators: frozenset[str]
    """Names without overload: 'aten.mul'."""

    def knows(self, op: str) -> bool:
        return op.rpartition(".")[0] in self.operators or op in self.operators

    def priced(self, kernels: Kernels, gpu: Gpu, profile: Profile) -> Priced:
        about = self._about(kernels)
        rates = [profile.rate(name) for name in about.names]
        efficiency, elements, fixed, band = (
            np.array([getattr(rate, field) for rate in rates], np.float64)[about.which] for field in ("efficiency", "elements", "fixed", "band")
        )
        clock = core_clock(gpu, profile)
        memory = kernels.hbm / (gpu.hbm.bandwidth * efficiency)
        through = np.maximum(about.through_l2 / (profile.l2_bandwidth * clock), about.elements / (elements * clock))
        return soft_roofline(through, memory, fixed * about.launches, about.sharpness, band)

    def _about(self, kernels: Kernels) -> _About:
        if self.family not in kernels.known:
            names, which = np.unique(np.array(self.rates(kernels), np.str_), return_inverse=True)
            columns = self.through_l2(kernels), self.elements(kernels), self.launches(kernels), self.sharpness(kernels)
            kernels.known[self.family] = _About(names.tolist(), which, *columns)
        found: _About = kernels.known[self.family]
        return found

    def elements(self, kernels: Kernels) -> Array:
        """Elements that each kernel goes through: those of its largest operand, unless a family knows better; [n]."""
        return kernels.largest

    def through_l2(self, kernels: Kernels) -> Array:
        """Bytes of each kernel that bound it as they pass the L2; [n]."""
        return kernels.touched

    def sharpness(self, kernels: Kernels) -> Array:
        """How sharply each kernel's one bound hands over to the other: 1 where the one's time follows the other's; [n]."""
        return np.full(len(kernels), SHARPNESS)

    def launches(self, kernels: Kernels) -> Array:
        """GPU kernels that each operator launches; [n]."""
        return np.ones(len(kernels))


def core_clock(gpu: Gpu, profile: Profile) -> float:
    """How much faster the processors of `gpu` run than those of the measured one: by their clock and their number."""
    return (gpu.clock.max * gpu.sms) / (profile.clock * profile.sms)


def types(kernels: Kernels) -> list[frozenset[str]]:
    """Floating types of each kernel's operands; [n]."""
    return [
        frozenset(dtype for dtype, _ in reads + writes if dtype.startswith(("float", "bfloat")))
        for reads, writes in zip(kernels.reads, kernels.writes, strict=True)
    ]  # fmt: skip


def evenly(kernels: Kernels) -> list[bool]:
    """Whether each kernel's operands can be loaded in wide steps; [n]."""
    return [bool(even) for even in kernels.even] if len(kernels.even) else [True] * len(kernels)
