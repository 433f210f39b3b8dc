"""From a published row to its outcome, by the source's group. Every row has exactly one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from membound.study.validation.outcome import LeftOut
from membound.study.validation.rows import Row

CaseT = TypeVar("CaseT")


@dataclass(frozen=True)
class Sources(Generic[CaseT]):
    """How rows are read, source by source; `CaseT` is a row that a Job can express."""

    read: Mapping[str, Callable[[Row], CaseT | LeftOut]]
    """By group of rows: what becomes of each."""
    whole: Mapping[str, tuple[str, str]]
    """Groups of which no row can be expressed: reason and detail."""
    words: Sequence[tuple[str, str, str]]
    """For rows of other groups: a word of source, model, task or strategy, reason and detail. The first that is found counts."""
    otherwise: str
    """What is not stated of all others."""

    def outcome(self, row: Row) -> CaseT | LeftOut:
        """What becomes of `row`."""
        if of_source := self.read.get(row.group):
            return of_source(row)
        if row.group in self.whole:
            return LeftOut(row, *self.whole[row.group])
        text = " ".join((row.source, row.model, row.task, row.strategy))
        for word, reason, detail in self.words:
            if word in text:
                return LeftOut(row, reason, detail)
        return LeftOut(row, "settings not stated", self.otherwise)
