"""What a study of published rows finds, whatever they publish: each row compared with its prediction, failed, or left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from membound.study.published.outcome import LeftOut, reasons

ComparedT = TypeVar("ComparedT")
CaseT = TypeVar("CaseT")


@dataclass(frozen=True)
class Failed(Generic[CaseT]):
    """A row whose Job the product refused, failed at, or could not price."""

    case: CaseT
    error: str


@dataclass(frozen=True)
class Answered(Generic[ComparedT, CaseT]):
    """Every published row with what became of it."""

    done: tuple[ComparedT | Failed[CaseT] | LeftOut, ...]
    versions: dict[str, str]
    """Of the packages that the predictions were made with."""

    @property
    def compared(self) -> list[ComparedT]:
        """Rows beside their predictions."""
        return [each for each in self.done if not isinstance(each, Failed | LeftOut)]

    @property
    def failed(self) -> list[Failed[CaseT]]:
        """Rows whose Job was refused, failed, or could not be priced."""
        return [each for each in self.done if isinstance(each, Failed)]

    @property
    def left_out(self) -> list[LeftOut]:
        """Rows that no Job expresses."""
        return [each for each in self.done if isinstance(each, LeftOut)]

    def reasons(self) -> list[tuple[str, str, int]]:
        """Why rows are left out: reason, detail, number of rows; most first."""
        return reasons(self.left_out)
