"""Heat: die and memory each as one thermal resistance to the inlet air and one capacity, the memory warmed by the die beside it.

C dT/dt = P - (T - T_inlet) / R, solved exactly over each interval of constant power.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.spec.machine import Gpu

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Thermal:
    """Constants of one board in its server."""

    inlet: float
    """Air before the heat sink, degC."""
    die: float
    """Resistance from the die to the inlet air, K/W of board power."""
    memory: float
    """Resistance from the memory's hottest point to the inlet air, K/W of board power."""
    time: float
    """Time constant of the heat sink, s."""
    band: float
    """K either way: servers differ in air and fans."""
    source: str


_SXM: Final = Thermal(30.0, 0.055, 0.070, 12.0, 10.0, "assumed until measured")


def thermal_of(gpu: Gpu) -> Thermal:
    """The constants of `gpu`. A board's cooling is made for its limit: resistances scale with 700 W over it."""
    scale = 700.0 / gpu.power.limit
    return Thermal(_SXM.inlet, _SXM.die * scale, _SXM.memory * scale, _SXM.time, _SXM.band, _SXM.source)


def temperatures(gpu: Gpu, power: Floats, period: float, settled: bool = True) -> tuple[Floats, Floats]:
    """Die and memory temperature, degC, at the end of each interval of `period` seconds of `power` watts.

    `settled`: begin where the mean power has been drawn for long; else cold.
    """
    thermal = thermal_of(gpu)
    begin = float(power.mean()) if settled and len(power) else 0.0
    smooth = _low_pass(power, begin, period / thermal.time)
    return thermal.inlet + thermal.die * smooth, thermal.inlet + thermal.memory * smooth


def _low_pass(values: Floats, begin: float, step: float) -> Floats:
    """First-order response to `values`, each held for `step` time constants."""
    keep = float(np.exp(-step))
    result = np.empty(len(values))
    state = begin
    for i, value in enumerate(values.tolist()):
        state = state * keep + value * (1 - keep)
        result[i] = state
    return result
