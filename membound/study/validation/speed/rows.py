"""Published readings of speed, and what their printing rounded off."""

from __future__ import annotations

from typing import Final

from membound.study.validation import rows
from membound.study.validation.rows import Row

_FILE: Final = "published_throughput.csv"


def read() -> list[Row]:
    """All rows, in the order of the file. Raises `RecordError` if two share an id."""
    return rows.read(_FILE)


def rounding(value: float) -> float:
    """Half of the last printed decimal of `value`, relative to it: 1.1 was anything from 1.05 to 1.15."""
    decimals = len(repr(value).partition(".")[2])
    return 0.5 * 10.0**-decimals / value
