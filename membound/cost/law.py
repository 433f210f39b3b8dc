"""What every law of hardware has in common: kernels in, seconds out, and what those seconds hang on.

A family of operations is one file with one final `Law`. Kernels come as arrays, so that a whole Trace is priced in a few calls.
"""

from __future__ import annotations

import abc
import functools
import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from membound.spec.machine import Gpu

Array = npt.NDArray[np.float64]

Shape = tuple[str, tuple[int, ...]]
"""Type and sizes of one operand: ('bfloat16', (4, 512, 4096))."""


@dataclass(frozen=True)
class Kernels:
    """Kernels of one family: arrays of one length n, one entry per distinct kernel."""

    op: tuple[str, ...]
    """Operator names, as PyTorch prints them: 'aten.mm.default'."""
    reads: tuple[tuple[Shape, ...], ...]
    """Operands read, in the operator's order."""
    writes: tuple[tuple[Shape, ...], ...]
    """Operands written."""
    flops: Array
    """Operations, multiply-adds counted as two; [n]."""
    hbm_read: Array
    """Bytes that really come from HBM, after the L2; [n]."""
    hbm_written: Array
    """Bytes that really go to HBM; [n]."""
    touched: Array
    """Bytes of all operands, wherever they come from; [n]."""
    flag: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """The Trace's flag: 1 where attention is causal, 2 more where it drops scores; [n], or empty where none is."""

    even: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    """Whether all operands are of one type, one shape and one dense layout, so that threads load them in wide steps; [n], or empty: all are."""

    @functools.cached_property
    def known(self) -> dict[str, Any]:
        """What a family has worked out about them that depends on no GPU, by its name: a sweep asks for it at every point."""
        return {}

    def __len__(self) -> int:
        return len(self.op)

    @property
    def hbm(self) -> Array:
        """HBM bytes, both ways; [n]."""
        return self.hbm_read + self.hbm_written

    @functools.cached_property
    def largest(self) -> Array:
        """Elements of each kernel's largest operand; [n]."""
        return np.array([most(reads + writes) for reads, writes in zip(self.reads, self.writes, strict=True)], np.float64)


def most(shapes: tuple[Shape, ...]) -> int:
    """Elements of the largest of `shapes`."""
    return max((math.prod(dims) for _, dims in shapes), default=0)


@dataclass(frozen=True)
class Priced:
    """Time of kernels at the machine's clocks. `compute`, `memory` and `fixed` are shares of it that add up to 1: by how many per cent
    the time falls where arithmetic, HBM or neither gets one per cent faster."""

    seconds: Array
    compute: Array
    memory: Array
    fixed: Array
    band: Array
    """Relative half-width of the band in which the truth is expected; [n]."""

    def times(self, factor: float | Array) -> Priced:
        """The same kernels, longer by `factor`, whatever they hang on."""
        return replace(self, seconds=self.seconds * factor)


class Law(abc.ABC):
    """The time of one family of operations on any GPU."""

    family: str
    """Its name, as docs/laws.md has it."""

    @abc.abstractmethod
    def knows(self, op: str) -> bool:
        """Whether this law prices the operator of that name."""

    @abc.abstractmethod
    def price(self, kernels: Kernels, gpu: Gpu) -> Priced:
        """Times on `gpu` at its present clocks, launch not included."""

    def beyond(self, kernels: Kernels, gpu: Gpu) -> tuple[Array, Array]:
        """HBM bytes that each kernel reads and writes beyond its operands once, which `price` counts by itself; [n] each. None, unless a
        family knows better."""
        return np.zeros(len(kernels)), np.zeros(len(kernels))


def soft_roofline(compute: Array, memory: Array, fixed: Array, sharpness: float | Array, band: float | Array) -> Priced:
    """((compute^p + memory^p)^(1/p)) + fixed, all in s: no kernel turns from one bound to the other at once.

    Args: `compute` s at the GPU's arithmetic alone, `memory` s at its HBM alone, `fixed` s that neither shortens, `sharpness` p.
    """
    both = (compute**sharpness + memory**sharpness) ** (1 / sharpness)
    seconds = both + fixed
    safe = np.where(both > 0, both, 1.0)
    # d ln t / d ln (1 / rate) of a p-norm is the term's p-th power over the sum.
    of_compute = np.where(both > 0, (compute / safe) ** sharpness, 0.0) * both
    of_memory = np.where(both > 0, (memory / safe) ** sharpness, 0.0) * both
    total = np.where(seconds > 0, seconds, 1.0)
    c, m = of_compute / total, of_memory / total
    return Priced(seconds, c, m, 1.0 - c - m, np.broadcast_to(np.asarray(band, np.float64), seconds.shape))
