"""The Run: what happened, or would. One schema, whether measured, predicted or published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pyarrow as pa

SCHEMA: Final = 1

Origin = Literal["measured", "predicted", "published"]


@dataclass(frozen=True)
class Value:
    """A quantity's value in its SI unit, with the band in which the truth is expected and where the number comes from."""

    value: float
    unit: str
    low: float
    high: float
    basis: str

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"value": self.value, "unit": self.unit, "low": self.low, "high": self.high, "basis": self.basis}


@dataclass(frozen=True)
class Missing:
    """A quantity that cannot be had, and why. Never 0."""

    reason: str

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"missing": self.reason}


@dataclass(frozen=True)
class Fits:
    """The verdict. `why` is one sentence, None when all fits."""

    gpu: bool
    host: bool
    why: str | None = None

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"gpu": self.gpu, "host": self.host, "why": self.why}


@dataclass(frozen=True)
class Run:
    """A Job on a Machine: verdict, summary values by quantity name, and tables (time series, breakdowns) by name."""

    origin: Origin
    job: Mapping[str, Any]
    machine: Mapping[str, Any]
    fits: Fits
    values: Mapping[str, Value | Missing]
    tables: Mapping[str, pa.Table] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    """Versions, notes on what was modelled rather than run, cures tried."""
    schema: int = SCHEMA

    def document(self) -> dict[str, Any]:
        """The JSON document of the command line."""
        return {
            "schema": self.schema,
            "origin": self.origin,
            "job": dict(self.job),
            "machine": dict(self.machine),
            "fits": self.fits.document(),
            "values": {name: value.document() for name, value in self.values.items()},
            **({"about": dict(self.about)} if self.about else {}),
        }

    def number(self, name: str) -> float | None:
        """The value of `name`, or None where it is missing or was never asked for."""
        value = self.values.get(name)
        return value.value if isinstance(value, Value) else None
