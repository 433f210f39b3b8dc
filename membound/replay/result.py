"""What the memory replay finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Moment:
    """A point of the program, in words a reader can look up."""

    instruction: int
    phase: str
    step: int
    micro: int
    module: str
    line: str
    op: str


@dataclass(frozen=True)
class Holding:
    """Bytes alive at the peak under one module path and category, and the line that made them."""

    category: str
    module: str
    line: str
    nbytes: int
    blocks: int


@dataclass(frozen=True)
class Curve:
    """Memory over the program: one entry for each allocation and free on the GPU. All of one length."""

    instruction: npt.NDArray[np.int64]
    allocated: npt.NDArray[np.int64]
    """B, rounded to 512 as the allocator does."""
    reserved: npt.NDArray[np.int64]
    """B"""
    by_category: dict[str, npt.NDArray[np.int64]]
    """B; sums to `allocated`."""


@dataclass(frozen=True)
class GpuMemory:
    """One rank's GPU memory. Bytes. Peaks over all captured steps; `steady_*` over the last one."""

    allocated_peak: int
    reserved_peak: int
    active_peak: int
    steady_allocated_peak: int
    steady_reserved_peak: int
    context: int
    """CUDA context and loaded kernels."""
    libraries: int
    """NCCL's buffers and what else libraries take outside the caching allocator."""
    used_peak: int
    """What the driver shows: reserved + context + libraries + managed memory that fits beside them."""
    capacity: int
    fits: bool
    why: str | None
    """One sentence when it does not fit."""
    moment: Moment
    """Where the allocated peak stands."""
    at_peak: dict[str, int]
    """Bytes by category at the allocated peak."""
    holdings: tuple[Holding, ...]
    """By category, module and line at the allocated peak, largest first."""
    curve: Curve
    retries: int = 0
    """Times the allocator had to give back its cache to go on."""
    varied: bool = False
    """Whether rows of differing length, one after another, were replayed as well: `reserved_peak` and `used_peak` are then the larger ones; all else
    is of rows at the cap."""
    snapshot: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class HostMemory:
    """The whole node's host memory: all its ranks together. Bytes."""

    used_peak: int
    pinned_peak: int
    """As really held: pinned blocks round up."""
    pageable_peak: int
    base: int
    """Operating system, Python processes and their libraries."""
    capacity: int
    fits: bool
    """Within what Linux leaves of the capacity to processes."""
    why: str | None
    by_category: dict[str, int]
    """One node's bytes by category and kind at the peak, for example 'optimizer (pinned)'."""
    rounding: int = 0
    """Of the pinned peak, what rounding to powers of two adds."""


@dataclass(frozen=True)
class Memory:
    """GPU and host together."""

    gpu: GpuMemory
    host: HostMemory
