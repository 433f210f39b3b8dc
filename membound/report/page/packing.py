"""Series as text that a browser unpacks fast: whole numbers of even steps, differences, byte planes, deflate, base64.

The lowest and the highest value are steps themselves, so the extremes of a curve are exact whatever the number of steps.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from membound.report.page.levels import Array, Level

# The code of a missing value; others are 0 .. steps.
MISSING: Final = -1
MOST_STEPS: Final = 32_000
_DEFLATE_LEVEL: Final = 6


@dataclass(frozen=True)
class Block:
    """One packed level of one series. A value is `offset + code * step`; [low, high, mean][devices][bins], or level 0 once."""

    level: int
    bins: int
    offset: float
    step: float
    delta: bool
    text: str

    def document(self) -> dict[str, Any]:
        """As the page's scripts read it, without its text."""
        return {"level": self.level, "bins": self.bins, "offset": self.offset, "step": self.step, "delta": self.delta}


@dataclass(frozen=True)
class Coding:
    """How values become codes."""

    offset: float
    step: float

    @classmethod
    def of(cls, extremes: tuple[float, float], steps: int) -> Coding:
        """From the lowest to the highest value in `steps` steps."""
        low, high = extremes
        return cls(low, (high - low) / steps if high > low else 1.0)

    def codes(self, values: Array) -> npt.NDArray[np.int16]:
        """The codes of `values`; `MISSING` for NaN."""
        there = np.isfinite(values)
        return np.where(there, np.rint((np.where(there, values, self.offset) - self.offset) / self.step), MISSING).astype(np.int16)


def pack(level: Level, coding: Coding) -> Block:
    """`level` as text."""
    parts = (level.low,) if level.level == 0 else (level.low, level.high, level.mean)
    codes = np.stack([coding.codes(part) for part in parts])
    delta, data = _smallest(codes)
    return Block(level.level, level.bins, coding.offset, coding.step, delta, base64.b64encode(data).decode())


def packed_size(level: Level, coding: Coding) -> int:
    """Characters that `pack` would give."""
    return len(pack(level, coding).text)


def extremes(values: Array) -> tuple[float, float]:
    """The lowest and the highest value that is there; zeros where none is."""
    present = values[np.isfinite(values)]
    return (float(present.min()), float(present.max())) if present.size else (0.0, 0.0)


def pack_text(text: str) -> str:
    """Any text, deflated, as base64."""
    return base64.b64encode(zlib.compress(text.encode(), _DEFLATE_LEVEL)).decode()


def _smallest(codes: npt.NDArray[np.int16]) -> tuple[bool, bytes]:
    """Deflated codes, as they are or as differences, and whether the latter."""
    plain = _deflate(codes)
    # Differences wrap around in 16 bits, and so does their sum.
    differences = np.diff(codes, axis=-1, prepend=np.int16(0))
    as_differences = _deflate(differences.astype(np.int16))
    return (True, as_differences) if len(as_differences) < len(plain) else (False, plain)


def _deflate(codes: npt.NDArray[np.int16]) -> bytes:
    pairs = np.ascontiguousarray(codes, dtype="<i2").reshape(-1).view(np.uint8).reshape(-1, 2)
    return zlib.compress(np.ascontiguousarray(pairs.T).tobytes(), _DEFLATE_LEVEL)
