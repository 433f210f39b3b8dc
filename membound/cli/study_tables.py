"""The validation study on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from membound.study.validation.memory.result import Result


def validation(result: Result) -> RenderableType:
    """The exam, agreement by group, our own measurements, and what was left out."""
    from rich.console import Group

    counts = f"{len(result.done)} published rows: {len(result.compared)} compared, {len(result.failed)} failed, {len(result.left_out)} left out"
    return Group(counts, *(table for table in (_exam(result), _groups(result), _own(result), _left_out(result)) if table is not None))


def _exam(result: Result) -> RenderableType | None:
    from membound.study.validation.memory.result import marks

    rows = [(mark.criterion, mark.limit, mark.found, "yes" if mark.passed else "NO") for mark in marks(result)]
    return titled("the exam", ("criterion", "limit", "found", "met"), rows)


def _groups(result: Result) -> RenderableType | None:
    from membound.study.validation.memory.statistics import by_group

    rows = [
        (group, quantity, str(each.count), f"{each.median:.2%}", f"{each.worst:+.2%}", f"{each.within_5:.0%}")
        for (group, quantity), each in by_group(result.done).items()
    ]
    return titled("predicted over published", ("group", "quantity", "rows", "median error", "worst", "within 5 %"), rows)


def _own(result: Result) -> RenderableType | None:
    from membound.study.validation.memory.result import own

    rows = [(key, str(each.count), f"{each.median:.3%}", f"{each.worst:+.3%}") for key, each in own(result.measured).items()]
    return titled("predicted over our own measurements", ("quantity", "runs", "median error", "worst"), rows)


def _left_out(result: Result) -> RenderableType | None:
    return titled("left out", ("reason", "detail", "rows"), [(reason, detail, str(count)) for reason, detail, count in result.reasons()])


def titled(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> RenderableType | None:
    """A table with `head` under `title`; None without rows."""
    from rich.markup import escape
    from rich.table import Table

    if not rows:
        return None
    table = Table(title=title, title_justify="left")
    for name in head:
        table.add_column(name)
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table
