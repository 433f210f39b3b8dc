"""Paragraphs between figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from membound.report.charts.data import Data
from membound.report.charts.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Prose(Figure):
    """Plain text, a paragraph each."""

    counted_as: ClassVar[str] = ""

    paragraphs: tuple[str, ...]

    def data(self) -> Data | None:
        """None: the text is all there is."""
        return None
