"""The base of all figures: what a reader needs to trust one, whatever its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from membound.report.charts.data import Data


@dataclass(frozen=True)
class Reference:
    """A published value, drawn across a figure as a dashed line. In the figure's SI unit."""

    value: float
    label: str
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure(ABC):
    """One figure, table or text of a page. All text is plain text: it is escaped where it is shown."""

    counted_as: ClassVar[str] = "Figure"
    """What the page counts it as; '' where it has no number."""

    title: str
    says: str = ""
    """One sentence of what it shows, computed from its data."""
    source: str = ""
    """Where the data are from."""
    notes: tuple[str, ...] = ()
    label: str = ""
    """Number of its own, such as 'Figure 7'; where empty, the page counts."""

    @abstractmethod
    def data(self) -> Data | None:
        """The data behind it, for CSV and for the table that stands for it; None where there are none, or where they are too many to list."""

    def references_of(self) -> tuple[Reference, ...]:
        """Every published value that is drawn in it."""
        return ()
