"""Published readings of memory."""

from __future__ import annotations

from typing import Final

from membound.study.validation import rows
from membound.study.validation.rows import Row

_FILE: Final = "published_memory.csv"


def read() -> list[Row]:
    """All rows, in the order of the file. Raises `RecordError` if two share an id."""
    return rows.read(_FILE)
