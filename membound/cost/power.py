"""Electrical power of a GPU board: what it draws when nothing runs, when anything does, and for each operation and byte; under the board's limit.

P = idle + active + e_tensor x tensor FLOP/s + e_plain x other FLOP/s + e_hbm x HBM B/s + e_link x link B/s, and never above the limit: there the
core clock falls until it holds. Dynamic energy goes with the square of the voltage, which near the top of its range goes with the clock.

The limit holds a board's mean over some tens of milliseconds, not each kernel (`held`). An H200 that is given large products begins at 805 TFLOP/s,
goes on at 723 after 40 ms, at 687 after 140 and at 660 after two seconds; in turns of 5 to 20 ms with copies it stays at 800
(validation/h200/clocks.json). A training step's layers take such turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.spec.machine import Gpu

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Energy:
    """Constants of one GPU."""

    active: float
    """W beyond the catalogue's idle draw while a process holds the GPU: clocks up, nothing running."""
    tensor: float
    """J per operation of 16-bit products at full clock, registers and shared memory included."""
    plain: float
    """J per operation outside the tensor cores."""
    element: float
    """J per element that a kernel without products goes through: loaded, converted, changed, stored."""
    read: float
    """J per byte from HBM, the way to the processors included."""
    written: float
    """J per byte to HBM, likewise."""
    cached: float
    """J per byte that the L2 gives or takes alone."""
    band: float
    """Relative half-width of the board's power."""
    source: str


# Our own readings on one H100 SXM, 1.5 s each (validation/kernels/h100-sxm.csv, family power). 125 W with a context and nothing running, 70 W in the
# catalogue. Random bf16 products of 8192^3 and 4096^3: 681 and 687 W at 666 TFLOP/s, of which 98 and 99 W for HBM, what they read again
# (membound.cost.rereads) included: 0.69 and 0.70 pJ; of 2048^3, out of the L2: 0.76; all three within 4 % with the mean. A weight of 16384^2 read
# by 16 rows: 552 W at 2.91 TB/s and 47 TFLOP/s. A copy: 504 W at 3.0 TB/s; a sum: 569 W at 3.05; zero_: 406 W at 3.29, the one that these
# constants miss, by 12 %.
# SiLU of bf16: 685 W out of HBM at 3.02 TB/s, 513 W out of the L2 at 3.25: 260 pJ an element in both, taken for other pointwise kernels too.
# A copy within the L2: 386 W at 4.82 TB/s. fp32 products: 677 W at 50 TFLOP/s.
#
# All of these were held by the limit for 1.5 s. In bursts of 8 ms, its clock at 1980 MHz, an H200 draws 935 and 948 W for products of 8192^3 and
# 4096^3 at 769 and 778 TFLOP/s (validation/kernels/h200.csv): 0.90 pJ, and 0.70 and 0.69 held at 650 and 648. An H100 is the same die.
_HOPPER: Final = Energy(55.0, 0.90e-12, 10.5e-12, 260e-12, 140e-12, 100e-12, 54e-12, 0.12, "energy per operation and byte measured on an H100")

# The same on two H200, whose HBM3e takes less a byte (validation/kernels/h200.csv, first card). 130 W with a context. Products of 8192^3, 4096^3
# and 2048^3: 680, 683 and 681 W at 662, 661 and 666 TFLOP/s, at core clocks of 1455 to 1740 MHz. A copy: 569 W at 4.24 TB/s; a sum: 640 W at 4.30;
# zero_: 347 W at 3.37; a weight of 16384^2 read by 16 rows: 641 W at 4.48 TB/s. SiLU of bf16: 679 W out of HBM at 3.69 TB/s, 483 W out of the L2 at
# 3.16. A copy within the L2: 378 W at 5.0 TB/s. fp32 products: 679 W at 50 TFLOP/s.
_H200: Final = Energy(55.0, 0.90e-12, 10.5e-12, 210e-12, 103e-12, 106e-12, 51e-12, 0.12, "energy per operation and byte measured on an H200")

# J per byte sent over NVLink or PCIe, one GPU's share: some 5 pJ a bit across a board, of which NVLink-C2C's 1.3 pJ a bit within a package is the
# floor (NVIDIA, Hot Chips 34); an assumption.
_LINK: Final = 40e-12


def energy_of(gpu: Gpu) -> Energy:
    """The constants of `gpu`; of a GPU that nobody has measured, Hopper's, scaled by how much power the maker allows for its peak rates."""
    if gpu.architecture == "hopper":
        return _H200 if gpu.name == "h200" else _HOPPER
    # At full load each board meets its limit: the energy per operation follows from the data sheet as Hopper's does from 700 W and 989 TFLOP/s.
    half = gpu.peaks.bf16 or gpu.peaks.fp16 or gpu.peaks.fp32
    ratio = (gpu.power.limit / half) / (700.0 / 989.4e12)
    board = gpu.power.limit / 700.0
    # Discrete GDDR6 and GDDR6X cost some two to three times HBM's energy per bit (Micron, "GDDR6X" technical brief: 7.25 pJ a bit at the pins).
    pins = 2.0 if gpu.hbm.kind.startswith("GDDR") else 1.0
    return Energy(
        _HOPPER.active * board, _HOPPER.tensor * ratio, _HOPPER.plain * ratio, _HOPPER.element * ratio, _HOPPER.read * pins,
        _HOPPER.written * pins, _HOPPER.cached, 0.3, "an H100's energy per operation and byte, scaled by board power over peak rate",
    )  # fmt: skip


@dataclass(frozen=True)
class Load:
    """What a GPU does per second; arrays of one shape."""

    tensor: Floats
    """FLOP/s of 16-bit products."""
    plain: Floats
    """Other FLOP/s."""
    elements: Floats
    """Elements per second of kernels without products."""
    read: Floats
    """B/s from HBM."""
    written: Floats
    """B/s to HBM."""
    cached: Floats
    """B/s within the L2."""
    links: Floats
    """B/s over NVLink and PCIe."""


def board_power(gpu: Gpu, load: Load) -> Floats:
    """Power of a board that a process holds, without the limit, W."""
    return gpu.power.idle + energy_of(gpu).active + _dynamic(gpu, load)


def _dynamic(gpu: Gpu, load: Load) -> Floats:
    """W beyond a board at rest, or J where `load` counts what was done in place of what is done a second."""
    cost = energy_of(gpu)
    moved = cost.read * load.read + cost.written * load.written + cost.cached * load.cached + _LINK * load.links
    return np.asarray(cost.tensor * load.tensor + cost.plain * load.plain + cost.element * load.elements + moved, np.float64)


# Energy of a tensor operation goes with this power of how fast the cores still are: 0.70 of 0.90 pJ at 650 of 769 TFLOP/s, 0.69 at 648 of 778.
_WITH_SPEED: Final = 1.5
# No slower than this.
_SLOWEST: Final = 0.3
# Halvings of the interval between that and full clock: to a thousandth.
_HALVINGS: Final = 10


def held(gpu: Gpu, arithmetic: Floats, seconds: Floats, done: Load) -> Floats | None:
    """Speed of the cores, 1 at full clock, at which a board keeps within its limit; None where `gpu` was measured only as its limit held it.

    Args: `arithmetic` seconds that hang on that speed, of `seconds` in all at full clock, in which `done` is done in all; arrays of one shape.
    """
    if gpu.architecture != "hopper":
        return None
    room = gpu.power.limit - gpu.power.idle - energy_of(gpu).active
    products = energy_of(gpu).tensor * done.tensor
    others = _dynamic(gpu, done) - products

    def fits(speed: Floats) -> npt.NDArray[np.bool_]:
        spent = products * speed**_WITH_SPEED + others
        return np.asarray(spent <= room * (seconds + arithmetic * (1 / speed - 1)), np.bool_)

    low, high = np.full(seconds.shape, _SLOWEST), np.ones(seconds.shape)
    low = np.where(fits(high), high, low)
    for _ in range(_HALVINGS if (low < high).any() else 0):
        middle = (low + high) / 2
        enough = fits(middle)
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    return low


# Board limits of the GPUs whose matrix products were measured, W (data sheets): what those boards had to throttle is in the measured times already.
_MEASURED_AT: Final[dict[str, float]] = {"ampere": 400.0, "blackwell": 1000.0, "ada": 350.0}


def throttles(gpu: Gpu) -> bool:
    """Whether a board of this limit may run below the clock of those that were measured; not where `held` tells it from full clock."""
    if gpu.architecture == "hopper" or gpu.hbm.kind.startswith("GDDR"):
        return False
    return gpu.power.limit < _MEASURED_AT.get(gpu.architecture, gpu.power.limit)


def throttle(gpu: Gpu, power: Floats) -> float:
    """Core clock over the measured board's, 1 at most, where a board of this limit would draw `power` on average without one."""
    if not throttles(gpu):
        return 1.0
    limit = _MEASURED_AT[gpu.architecture]
    return float((core_clock(gpu, power) / core_clock(gpu, power, limit)).mean())


def core_clock(gpu: Gpu, power: Floats, limit: float | None = None) -> Floats:
    """Core clock that keeps the board within its limit where it would draw `power`, Hz: what is above idle falls with the cube of the clock.

    `limit` in place of the board's own, W.
    """
    still = gpu.power.idle + energy_of(gpu).active
    room = max((limit or gpu.power.limit) - still, 1.0)
    over = np.maximum((power - still) / room, 1.0)
    return np.asarray(gpu.clock.max / np.cbrt(over), np.float64)
