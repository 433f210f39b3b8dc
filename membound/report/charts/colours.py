"""Colours of curves, points and bars, told apart by the colour-blind; shapes and dashes tell them apart in grey."""

from __future__ import annotations

from typing import Final

from membound.report.palette import THEMES

# M. Okabe, K. Ito, "Color Universal Design" (2008), without its black, which is the ink here. Those that stand out most on white come first.
OKABE_ITO: Final = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#8a8f98", "#f0e442")
# Dashes in pixels, drawn and blank in turn; () is solid. With eight colours, sixty-four curves differ.
DASHES: Final[tuple[tuple[int, ...], ...]] = ((), (7, 3), (2, 2), (9, 3, 2, 3), (12, 4), (4, 2), (1, 3), (9, 2, 2, 2, 2, 2))
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "*")


def css(theme_name: str) -> dict[str, str]:
    """CSS variables of a theme, 'light' or 'dark'."""
    theme = THEMES["dark" if theme_name == "dark" else "light"]
    base = {"ground": theme.ground, "ink": theme.ink, "quiet": theme.quiet, "faint": theme.faint, "alarm": theme.alarm}
    named = {f"--{name}": colour for name, colour in base.items()}
    stack = {f"--fill-{name}": colour for name, colour in theme.fill.items()}
    return named | stack | {f"--c{index}": colour for index, colour in enumerate(OKABE_ITO)}
