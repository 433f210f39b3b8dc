"""Where things stand in a memory timeline, in pixels from the top left, wide or narrow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Below this width the key goes under the plot.
_WIDE: Final = 860
# One typographic point in pixels of a figure at 100 pixels per inch.
POINT: Final = 100 / 72
# Mean width of a character of DejaVu Sans, in ems.
_EM: Final = 0.6


# Where a key under the plot begins, in pixels below the axes.
KEY_TOP: Final = 72


@dataclass(frozen=True)
class Layout:
    """Pixels, and font sizes in points."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    text: float
    small: float
    large: float
    wide: bool

    @classmethod
    def of(cls, width: int, entries: int) -> Layout:
        """The layout for a figure `width` pixels wide, with so many entries in its key."""
        if width >= _WIDE:
            return cls(width, round(width * 0.5), 70, 268, 84, 74, text=10.5, small=9.5, large=15, wide=True)
        bottom = KEY_TOP + round(-(-entries // 2) * 8 * POINT * 1.65) + 6
        return cls(max(width, 320), 390 + bottom, 48, 16, 96, bottom, text=8.5, small=8, large=12, wide=False)

    @property
    def plot_width(self) -> int:
        """Width of the axes."""
        return self.width - self.left - self.right

    @property
    def plot_height(self) -> int:
        """Height of the axes."""
        return self.height - self.top - self.bottom

    @property
    def axes(self) -> tuple[float, float, float, float]:
        """The axes' rectangle as matplotlib wants it: left, bottom, width, height, as shares."""
        return self.left / self.width, self.bottom / self.height, self.plot_width / self.width, self.plot_height / self.height

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A pixel, counted from the top left, as shares of the figure from the bottom left."""
        return x / self.width, 1 - y / self.height

    def line(self, points: float) -> float:
        """Height of a line of text, in pixels."""
        return points * POINT * 1.45

    def letters(self, pixels: float, points: float) -> int:
        """How many characters of this font size go into so many pixels."""
        return max(int(pixels / (points * POINT * _EM)), 1)


def fitting(words: tuple[str, ...], letters: int) -> str:
    """The first of `words` that fits in so many characters; '' if none does."""
    return next((word for word in words if len(word) <= letters), "")
