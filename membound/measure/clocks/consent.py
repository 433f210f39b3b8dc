"""The one door to setting clocks. Nothing but `grant` returns an object that sets any, and it asks for a person's consent.

A `Consent` is made from the command line's option, or read back from a journal that an earlier consent wrote. tests/measure/clocks/test_doors.py
walks the source: who makes one, who calls `grant`, who performs a call, who names a setting function of the driver.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, Self

from membound.errors import InputError
from membound.measure.clocks.calls import Answer, Call
from membound.measure.clocks.driver import Driver

PATH: Final = "machine.gpu.hbm.clock"
"""What a measured sweep must be over, for clocks to be switched."""


@dataclass(frozen=True)
class Consent:
    """A person asked for clocks to be switched: `words` are the option that they gave."""

    words: str

    @classmethod
    def from_options(cls, measure: bool, over: str) -> Self:
        """The consent in `--measure --over machine.gpu.hbm.clock=...`. Raises `InputError` where either is not there."""
        if not measure:
            raise InputError("--measure", measure, "give it for clocks to be switched on this machine; without it, a sweep is predicted")
        if over.partition("=")[0].strip() != PATH:
            raise InputError("--over", over, f"a measured sweep switches the memory clock: {PATH}=1593MHz,2619MHz")
        return cls(f"--measure --over {over}")


class Controls(ABC):
    """What sets clocks. To be had from `grant` alone."""

    @abstractmethod
    def perform(self, call: Call) -> Answer:
        """Make `call`. Raises `GpuLostError`; all else that the driver says is in the answer, which proves nothing: read back."""


class Settable(Driver):
    """A driver that has controls."""

    @abstractmethod
    def _controls(self) -> Controls:
        """For `grant` alone."""


def grant(driver: Settable, consent: Consent) -> Controls:
    """The controls of `driver`, for someone who has a person's consent."""
    if not isinstance(consent, Consent) or not consent.words:
        raise InputError("consent", consent, "clocks are switched only on --measure --over machine.gpu.hbm.clock=...")
    return driver._controls()
