"""Units as a page shows them: one scale for an axis, and values in words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from membound import units

_DECIMAL: Final = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
_BINARY: Final = (("Ti", 2.0**40), ("Gi", 2.0**30), ("Mi", 2.0**20), ("Ki", 2.0**10))
_SHORT: Final = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
# Clocks of memory and cores are told in MHz by data sheets and drivers.
_MEGAHERTZ: Final = 1e6
_PREFIXED: Final = frozenset({"B", "B/s", "W", "J", "FLOP", "FLOP/s", "s", "1", "T/s"})


@dataclass(frozen=True)
class Scale:
    """How an axis is labelled: SI value times `factor`, in `label`."""

    factor: float
    label: str


def scale(largest: float, unit: str) -> Scale:
    """The scale for values of up to `largest`, in the SI unit `unit`."""
    if unit == "1":
        return Scale(100.0, "%")
    if unit == "degC":
        return Scale(1.0, "°C")
    if unit == "Hz":
        return Scale(1 / _MEGAHERTZ, "MHz")
    if unit == "s":
        return next((Scale(1 / size, name) for name, size in _SHORT if largest >= size), Scale(1e6, "µs"))
    prefixes = {"B": _BINARY, "B/s": _DECIMAL, "FLOP": _DECIMAL, "FLOP/s": _DECIMAL, "T/s": _DECIMAL, "J": _DECIMAL}.get(unit, ())
    return next((Scale(1 / size, prefix + unit) for prefix, size in prefixes if largest >= size), Scale(1.0, unit))


def say(value: float, unit: str, digits: int = 3) -> str:
    """A value with its unit, as people read it."""
    if not math.isfinite(value):
        return "none"
    if unit == "degC":
        return f"{plain(value, digits)} °C"
    if unit == "parameter":
        return f"{value:,.0f} parameters"
    if unit == "Hz" and abs(value) >= _MEGAHERTZ:
        return f"{value / _MEGAHERTZ:.0f} MHz"
    if unit == "1" and value and abs(value) < 0.01:
        return f"{plain(value * 100, 2)} %"
    if unit in _PREFIXED:
        return units.show(value, unit, digits)
    return f"{plain(value, digits)} {unit}".rstrip()


def between(low: float, high: float, unit: str) -> str:
    """A band, its unit said once where both ends have the same."""
    first, last = say(low, unit), say(high, unit)
    number, space, label = first.rpartition(" ")
    return f"{number} to {last}" if space and last.endswith(f" {label}") else f"{first} to {last}"


def clock(seconds: float) -> str:
    """A time since the Run began: '3.7 s', '40:31', '1:02:03'."""
    if abs(seconds) < 60:
        return say(seconds, "s")
    whole = round(seconds)
    front = f"{whole // 3600}:{whole % 3600 // 60:02d}" if whole >= 3600 else str(whole // 60)
    return f"{front}:{whole % 60:02d}"


def plain(value: float, digits: int = 3) -> str:
    """A number with so many significant digits, whole parts never cut, thousands parted."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "none"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text and float(value).is_integer() else text
