"""What a sweep keeps of one point's replay: means over a step, and what the step hangs on. No series, so that a point costs milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from membound.cost.heat import temperatures
from membound.cost.power import board_power, core_clock
from membound.replay.flows import FLOWS
from membound.replay.predict_time import Timing, mean_values
from membound.replay.series import COLUMNS, Course
from membound.replay.step import Played
from membound.run.schema import Missing, Value
from membound.run.series import GPU_PERIOD
from membound.spec.machine import Machine

NAMES: Final = (
    "step.time", "tokens.rate", "tokens.rate.useful", "mfu", "gpu.busy", "hbm.bandwidth.mean", "hbm.utilisation.mean", "gpu.power.mean",
    "gpu.energy.step",
)  # fmt: skip
"""Quantities of a Run that a point has as `membound predict` has them; its power is averaged phase by phase, not over a drawn stretch of the run."""

ENERGY_PER_TOKEN: Final = "energy.token"


@dataclass(frozen=True)
class Priced:
    """One point's step."""

    values: Mapping[str, Value | Missing]
    """By quantity name, `NAMES`."""
    energy_per_token: Value
    """Of one GPU, for each token that is no padding, J/token."""
    sensitivity: Mapping[str, float]
    """By how many per cent the step gets shorter where each resource gets one per cent faster; they add up to 1."""

    @property
    def bound(self) -> str:
        """The resource that the step hangs on most."""
        return max(self.sensitivity, key=self.sensitivity.__getitem__)


def of(played: Played, machine: Machine) -> Priced:
    """What is kept of `played` on `machine`."""
    found = mean_values(_steady(played, machine))
    values = {name: found[name] for name in NAMES}
    return Priced(values, _energy_per_token(values), dict(played.sensitivity))


def mean_power(played: Played, machine: Machine) -> float:
    """Mean power of the board over a step, W: each phase draws evenly, and never above the limit; a waiting GPU draws as an idle one."""
    gpu = machine.gpu
    seconds = played.spent[:, 0]
    safe = np.where(seconds > 0, seconds, 1.0)
    rates = {name: played.flows[:, number] / safe for number, name in enumerate(FLOWS)}
    energy = np.minimum(board_power(gpu, played.load(rates)), gpu.power.limit) * seconds
    nothing = {name: np.zeros(1) for name in FLOWS}
    still = float(board_power(gpu, played.load(nothing))[0])
    return float((played.mean(energy) + still * played.waiting) / played.step[0])


def _steady(played: Played, machine: Machine) -> Timing:
    """A Timing of mean power throughout and of no series: what it says of peaks is not to be read."""
    power = np.array([mean_power(played, machine)])
    die, memory = temperatures(machine.gpu, power, GPU_PERIOD)
    course = Course(GPU_PERIOD, np.zeros((1, len(COLUMNS))), (), GPU_PERIOD)
    return Timing(played, machine, course, power, core_clock(machine.gpu, power), die, memory)


def _energy_per_token(values: Mapping[str, Value | Missing]) -> Value:
    energy, rate, step = (values[name] for name in ("gpu.energy.step", "tokens.rate.useful", "step.time"))
    assert isinstance(energy, Value)
    assert isinstance(rate, Value)
    assert isinstance(step, Value)
    tokens = rate.value * step.value
    return Value(
        energy.value / tokens, "J/token", energy.low / tokens, energy.high / tokens, "gpu.energy.step over the step's tokens without padding"
    )
