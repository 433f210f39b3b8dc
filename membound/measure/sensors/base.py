"""What all sensors have in common: an answer per curve, each with its validity, and a card that says what the sensor is."""

from __future__ import annotations

import abc
import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

QUICK: Final = "quick"
"""Lane of the sensors that answer well within a tick."""

Tier = Literal["pm", "gpm", "nvml", "nvml_busy", "kernel", "perf", "rapl", "none"]
"""Kinds of origin: performance-monitor sampling, NVML's GPM, plain NVML, NVML's busy flags, the kernel's own files, its perf events, RAPL."""


class Validity(enum.IntEnum):
    """Why a sample has a value, or has none. Codes are stored: they are only ever appended to."""

    OK = 0
    NOT_SUPPORTED = 1
    NO_PERMISSION = 2
    LOST = 3
    """The GPU does not answer any more."""
    STALE = 4
    """The sensor did not answer in time, and its last answer is too old to stand for now."""
    SENTINEL = 5
    """The driver gave a number that stands for "not available"."""
    ERROR = 6
    """The driver refused for another reason."""
    ABSENT = 7
    """Nothing on this machine gives this curve."""


REASONS: Final = {
    Validity.NOT_SUPPORTED: "not supported by this device or driver",
    Validity.NO_PERMISSION: "no permission",
    Validity.LOST: "the GPU was lost",
    Validity.STALE: "the sensor did not answer in time",
    Validity.SENTINEL: "the driver answered with a number that stands for 'not available'",
    Validity.ERROR: "the driver refused",
    Validity.ABSENT: "no sensor gives this here",
}
"""Validity in words, as the table `curves` has it."""

Answer = tuple[float, Validity]
"""A value in the curve's SI unit, and its validity. The value is NaN unless it is valid."""


def good(value: float) -> Answer:
    """`value` as a valid answer."""
    return value, Validity.OK


def bad(validity: Validity) -> Answer:
    """No value, and why."""
    return math.nan, validity


@dataclass(frozen=True)
class Card:
    """What a sensor is. `curves` are names of `membound.run.series`, in the order of its answers."""

    name: str
    tier: Tier
    source: str
    """In words: which call, counter or file."""
    table: Literal["gpu", "host"]
    key: int
    """Number of the GPU, or of the node."""
    curves: tuple[str, ...]
    every: float
    """How often it is asked, s."""
    period: float | None
    """How often the source has something new by its documentation, s; None where it says nothing or is read through."""
    window: bool = False
    """Each answer is the mean over the time since the last one: new even where the number is the same."""
    lane: str = QUICK
    """Sensors of one lane are asked by one thread. Those whose calls may take longer than a tick are in lanes of their own."""
    enough: float = 0.0
    """Asked this often, s, it still shows (next to) all that it knows; 0: only as often as `every`. Where it is dear, others lose nothing first."""
    longest: float = 1.0
    """How seldom it may be asked at most, s, where it is dear; less than `every`: never less often than that."""
    own_periods: Mapping[str, float] = field(default_factory=dict)
    """Documented periods of single curves, where they are not all alike, s."""

    @property
    def slow(self) -> bool:
        """Whether a call may take longer than a tick."""
        return self.lane != QUICK

    def documented(self, curve: str) -> float | None:
        """How often `curve` has something new by its documentation, s."""
        return self.own_periods.get(curve, self.period)


class Sensor(abc.ABC):
    """One way of asking one device. Final subclasses only."""

    card: Card

    @abc.abstractmethod
    def read(self) -> Sequence[Answer]:
        """One answer per curve of the card, or none at all: nothing new. Never raises for what a device or driver refuses: that is an answer."""

    def close(self) -> None:  # noqa: B027 - most sensors hold nothing
        """Give back what the sensor holds."""


@dataclass(frozen=True)
class Gap:
    """Curves that nothing here gives: why, and what would cure it."""

    table: Literal["gpu", "host"]
    key: int | None
    """Number of the GPU or node; None: there is none at all."""
    curves: tuple[str, ...]
    validity: Validity
    reason: str
    remedy: str
    """What would cure it, as a command where one does; empty where nothing would."""
