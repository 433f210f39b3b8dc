"""Heat: die and memory each as one thermal resistance to the inlet air and one capacity, the memory warmed by the die beside it.

C dT/dt = P - (T - T_inlet) / R, solved exactly over each interval of constant power.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.spec.machine import Gpu

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Thermal:
    """Constants of one board in its server."""

    inlet: float
    """What the die cools down to without any power: the air or water before the heat sink, degC."""
    die: float
    """Resistance from the die to there, K/W of board power."""
    memory: float
    """Resistance from the memory's hottest point, K/W of board power."""
    memory_above: float
    """How much warmer than the inlet the memory is without any power, K."""
    time: float
    """Time constant of the heat sink, s."""
    band: float
    """K either way: servers differ in air and fans."""
    source: str


# Least squares over the 20 ms records of every other of 25 jobs, 20 to 70 s each, on two H100 SXM (validation/h100/series-*.tar; rest 1.6 K root mean
# square). So short a run shows the spreader's time constant, not that of a heat sink that warms up over minutes; the band is for other servers.
_SXM: Final = Thermal(36.9, 0.035, 0.025, 4.6, 4.0, 12.0, "an H100's temperatures over power in runs of half a minute, one server")


def thermal_of(gpu: Gpu) -> Thermal:
    """The constants of `gpu`. A board's cooling is made for its limit: resistances scale with 700 W over it."""
    scale = 700.0 / gpu.power.limit
    return replace(_SXM, die=_SXM.die * scale, memory=_SXM.memory * scale)


def temperatures(gpu: Gpu, power: Floats, period: float, settled: bool = True) -> tuple[Floats, Floats]:
    """Die and memory temperature, degC, at the end of each interval of `period` seconds of `power` watts.

    `settled`: begin where the mean power has been drawn for long; else cold.
    """
    thermal = thermal_of(gpu)
    begin = float(power.mean()) if settled and len(power) else 0.0
    smooth = _low_pass(power, begin, period / thermal.time)
    return thermal.inlet + thermal.die * smooth, thermal.inlet + thermal.memory_above + thermal.memory * smooth


def _low_pass(values: Floats, begin: float, step: float) -> Floats:
    """First-order response to `values`, each held for `step` time constants."""
    keep = float(np.exp(-step))
    result = np.empty(len(values))
    state = begin
    for i, value in enumerate(values.tolist()):
        state = state * keep + value * (1 - keep)
        result[i] = state
    return result
