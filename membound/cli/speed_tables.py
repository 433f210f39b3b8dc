"""The study of published speeds on a terminal: misses first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from membound.cli.study_tables import titled

if TYPE_CHECKING:
    from rich.console import RenderableType

    from membound.study.validation.speed.result import SpeedResult
    from membound.study.validation.speed.statistics import GroupErrors


def speed(result: SpeedResult) -> RenderableType:
    """Rows that are far off, agreement by group beside the trivial predictor, what failed, and what was left out."""
    from rich.console import Group

    counts = f"{len(result.done)} published speeds: {len(result.compared)} compared, {len(result.failed)} failed, {len(result.left_out)} left out"
    tables = (_misses(result), _groups(result), _failures(result), _left_out(result))
    return Group(counts, *(table for table in tables if table is not None), *_floor(result))


def _misses(result: SpeedResult, most: int = 20) -> RenderableType | None:
    from membound.study.validation.sections import title

    misses = result.misses()
    rows = [(each.case.row.id, each.case.group, title(each.case.row), each.gpu, f"{each.ratio:.2f}") for each in misses[:most]]
    heading = f"more than 20 % off: {len(misses)} of {len(result.compared)}" + (f", the {most} furthest" if len(misses) > most else "")
    return titled(heading, ("row", "group", "what", "GPU", "ratio"), rows)


def _groups(result: SpeedResult) -> RenderableType | None:
    from membound.study.validation.speed.statistics import by_group, overall

    rows = [(*key, *_cells(each)) for key, each in sorted(by_group(result.done).items(), key=lambda item: item[1].met)]
    if (whole := overall(result.done)) is not None:
        rows.append(("all", "", "", *_cells(whole)))
    head = ("group", "method", "GPU", "rows", "mean", "90 %", "bias", "trivial mean", "met")
    return titled("predicted over published speed, less 1", head, rows)


def _cells(each: GroupErrors) -> tuple[str, ...]:
    trivial = f"{each.trivial.mean:.1%}" if each.trivial is not None else ""
    ours = each.ours
    return str(ours.count), f"{ours.mean:.1%}", f"{ours.tail:.1%}", f"{ours.bias:+.1%}", trivial, "yes" if each.met else "NO"


def _failures(result: SpeedResult) -> RenderableType | None:
    return titled("failed", ("error", "rows"), [(error, str(len(rows))) for error, rows in result.failures()])


def _left_out(result: SpeedResult) -> RenderableType | None:
    return titled("left out", ("reason", "detail", "rows"), [(reason, detail, str(count)) for reason, detail, count in result.reasons()])


def _floor(result: SpeedResult) -> list[str]:
    import statistics

    differences = [each.difference for each in result.repeats]
    if not differences:
        return []
    median, most = f"{statistics.median(differences):.1%}", f"{max(differences):.1%}"
    return [f"the floor: {len(differences)} recipes that others measured twice differ by {median} in the median, by up to {most}"]
