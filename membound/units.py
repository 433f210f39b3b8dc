"""The one place where quantities with units are read and printed. Inside membound everything is SI (B, s, Hz, B/s, W, J, degC, FLOP/s)."""

from __future__ import annotations

import math
import re

from membound.errors import UnitError

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_SMALL = {"n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3}


def _family(unit: str, *tables: dict[str, float]) -> dict[str, float]:
    return {prefix + unit: factor for table in tables for prefix, factor in table.items()}


# Every unit that a person may write, by SI unit.
_KNOWN: dict[str, dict[str, float]] = {
    "B": _family("B", _DECIMAL, _BINARY),
    "B/s": _family("B/s", _DECIMAL, _BINARY),
    "s": {**_family("s", {"": 1.0}, _SMALL), "min": 60.0, "h": 3600.0},
    "Hz": _family("Hz", _DECIMAL),
    "T/s": _family("T/s", _DECIMAL),
    "FLOP": _family("FLOP", _DECIMAL),
    "FLOP/s": _family("FLOP/s", _DECIMAL),
    "W": _family("W", _DECIMAL, {"m": 1e-3}),
    "J": {**_family("J", _DECIMAL, _SMALL), "p" + "J": 1e-12, "Wh": 3600.0, "kWh": 3.6e6},
    "J/B": _family("J/B", {"": 1.0}, _SMALL, {"p": 1e-12}),
    "J/FLOP": _family("J/FLOP", {"": 1.0}, _SMALL, {"p": 1e-12}),
    "K/W": {"K/W": 1.0},
    "J/K": _family("J/K", {"": 1.0, "k": 1e3}),
    "bit": {"bit": 1.0},
    "degC": {"degC": 1.0, "C": 1.0, "°C": 1.0},
    "%": {"%": 0.01},
    "1": {"": 1.0, "%": 0.01},
}

_NUMBER = re.compile(r"\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(\S*)\s*")


def parse(text: str | int | float, unit: str, field: str = "value") -> float:
    """Read `text` ('2619 MHz', '80GiB', 12) as a number in the SI `unit`.

    A bare number is taken to be in `unit` already. Raises `UnitError` that names `field` for anything else.
    """
    known = _KNOWN[unit]
    if isinstance(text, bool):
        raise UnitError(field, text, f"write a quantity such as {_example(unit)}")
    if isinstance(text, int | float):
        number, factor = float(text), 1.0
    else:
        match = _NUMBER.fullmatch(text)
        if match is None or (match[2] and match[2] not in known):
            raise UnitError(field, text, f"write a quantity such as {_example(unit)}")
        number, factor = float(match[1].replace("_", "")), known[match[2]] if match[2] else 1.0
    if not math.isfinite(number):
        raise UnitError(field, text, "write a finite number")
    return number * factor


def _example(unit: str) -> str:
    return {
        "B": "'80 GiB'", "B/s": "'900 GB/s'", "s": "'20 ms'", "Hz": "'2619 MHz'", "T/s": "'4400 MT/s'", "W": "'700 W'",
        "FLOP/s": "'989 TFLOP/s'", "degC": "'87 degC'", "bit": "'5120 bit'", "J": "'1.5 kJ'",
    }.get(unit, f"'1 {unit}'")  # fmt: skip


def show(value: float, unit: str, digits: int = 3) -> str:
    """Print an SI value the way people read it: bytes in binary units, all else in decimal ones, times down to microseconds."""
    if unit == "B":
        return _scaled(value, _BINARY, "B", digits, small="B")
    if unit == "1":
        return f"{value * 100:.{max(digits - 2, 0)}f} %"
    if unit == "s":
        return _time(value, digits)
    if unit in {"degC", "bit"}:
        return f"{value:.{digits}g} {unit}"
    return _scaled(value, {k: v for k, v in _DECIMAL.items() if k not in {"", "K"}}, unit, digits, small=unit)


def _scaled(value: float, table: dict[str, float], unit: str, digits: int, small: str) -> str:
    for prefix, factor in sorted(table.items(), key=lambda item: -item[1]):
        if abs(value) >= factor:
            return f"{_significant(value / factor, digits)} {prefix}{unit}"
    return f"{_significant(value, digits)} {small}"


def _time(value: float, digits: int) -> str:
    if value == 0 or abs(value) >= 1:
        return f"{_significant(value, digits)} s"
    for prefix, factor in (("m", 1e-3), ("µ", 1e-6), ("n", 1e-9)):
        if abs(value) >= factor:
            return f"{_significant(value / factor, digits)} {prefix}s"
    return f"{_significant(value, digits)} s"


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{decimals}f}"
