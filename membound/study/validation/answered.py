"""What a study of published rows finds, whatever they publish: each row compared with its prediction, failed, or left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from membound.study.validation.outcome import Case, LeftOut, reasons

ComparedT = TypeVar("ComparedT")
CaseT = TypeVar("CaseT")
AnyCase = TypeVar("AnyCase", bound=Case)
AnyBeside = TypeVar("AnyBeside", bound="Beside")


class Beside(Protocol):
    """A row beside its prediction, whatever it publishes."""

    @property
    def case(self) -> Case:
        """The row with its Job."""


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


def flat(
    each: AnyBeside | Failed[AnyCase] | LeftOut,
    columns: Iterable[str],
    of_case: Callable[[AnyCase], Mapping[str, Any]],
    of_compared: Callable[[AnyBeside], Mapping[str, Any]],
) -> dict[str, Any]:
    """One row with its outcome as a mapping of plain values, None in those of `columns` that it does not have."""
    row = each.row if isinstance(each, LeftOut) else each.case.row
    names: dict[str, Any] = {**dict.fromkeys(columns), "id": row.id, "source": row.source, "settings": []}
    if isinstance(each, LeftOut):
        return {**names, "outcome": "left out", "reason": each.reason, "detail": each.detail}
    if isinstance(each, Failed):
        return {**names, **of_case(each.case), "outcome": "failed", "reason": each.error}
    return {**names, "outcome": "compared", **of_compared(each)}
