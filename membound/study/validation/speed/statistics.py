"""How near predicted speeds come: errors by group, method and GPU, beside a predictor that knows nothing of the Job, and the floor."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from membound.study.validation.rows import Row
from membound.study.validation.speed.comparison import SpeedCompared, SpeedDone
from membound.study.validation.speed.outcome import GROUPS

MEAN_LIMIT: Final = 0.10
"""The exam: mean absolute error of a group."""
TAIL_LIMIT: Final = 0.20
"""The exam: absolute error at the 90th percentile of a group."""
BIAS_LIMIT: Final = 0.05
"""The exam: size of a group's mean error with its sign."""

Key = tuple[str, str, str]
"""Group, method, GPU."""


@dataclass(frozen=True)
class SpeedErrors:
    """Of ratios of predicted to published speed: how far from 1."""

    count: int
    mean: float
    """Mean of |ratio - 1|."""
    tail: float
    """90th percentile of |ratio - 1|: the smallest that nine in ten do not exceed."""
    bias: float
    """Mean of ratio - 1; with its sign."""
    worst: float
    """ratio - 1 where it is furthest from 0; with its sign."""


def errors(ratios: Sequence[float]) -> SpeedErrors:
    """`SpeedErrors` of at least one ratio."""
    off = [ratio - 1 for ratio in ratios]
    size = sorted(abs(each) for each in off)
    return SpeedErrors(len(off), statistics.fmean(size), size[math.ceil(0.9 * len(size)) - 1], statistics.fmean(off), max(off, key=abs))


@dataclass(frozen=True)
class GroupErrors:
    """One group's errors, and the trivial predictor's on those of its rows that it can predict."""

    ours: SpeedErrors
    ours_there: SpeedErrors | None
    """Ours on the rows that the trivial predictor has."""
    trivial: SpeedErrors | None
    """None where no other source measured that GPU."""
    inside: float
    """Share of published times within the prediction's band."""

    @property
    def met(self) -> bool:
        """Whether the group meets the exam's limits."""
        near = self.ours.mean <= MEAN_LIMIT and self.ours.tail <= TAIL_LIMIT and abs(self.ours.bias) <= BIAS_LIMIT
        return near and (self.trivial is None or self.ours_there is None or self.ours_there.mean < self.trivial.mean)


def by_group(done: Iterable[SpeedDone]) -> dict[Key, GroupErrors]:
    """Errors by group, method and GPU, in the order of `GROUPS`."""
    compared = [each for each in done if isinstance(each, SpeedCompared)]
    trivial = trivial_ratios(compared)
    members: dict[Key, list[SpeedCompared]] = {}
    for each in compared:
        members.setdefault((each.case.group, each.case.job.recipe.method, each.gpu), []).append(each)
    order = list(GROUPS)
    return {key: _of(members[key], trivial) for key in sorted(members, key=lambda key: (order.index(key[0]), *key[1:]))}


def overall(done: Iterable[SpeedDone]) -> GroupErrors | None:
    """Errors over all compared rows; None without any."""
    compared = [each for each in done if isinstance(each, SpeedCompared)]
    return _of(compared, trivial_ratios(compared)) if compared else None


def _of(compared: Sequence[SpeedCompared], trivial: dict[str, float]) -> GroupErrors:
    there = [each for each in compared if each.case.row.id in trivial]
    return GroupErrors(
        errors([each.ratio for each in compared]),
        errors([each.ratio for each in there]) if there else None,
        errors([trivial[each.case.row.id] for each in there]) if there else None,
        sum(each.inside for each in compared) / len(compared),
    )


def trivial_ratios(compared: Sequence[SpeedCompared]) -> dict[str, float]:
    """By row, the speed that each GPU's median achieved FLOP/s predicts over the published one, the row's own source left out.

    A row on a GPU that no other source measured has none.
    """
    reached: dict[tuple[str, str], float | None] = {}
    for each in compared:
        key = each.gpu, each.case.row.group
        if key not in reached:
            others = [other.achieved for other in compared if other.gpu == each.gpu and other.case.row.group != each.case.row.group]
            reached[key] = statistics.median(others) if others else None
    pairs = ((each, reached[each.gpu, each.case.row.group]) for each in compared)
    return {each.case.row.id: median / each.achieved for each, median in pairs if median is not None}


@dataclass(frozen=True)
class Repeat:
    """One recipe, measured twice by others on the same GPU."""

    first: Row
    second: Row

    @property
    def difference(self) -> float:
        """Of the two readings, relative to the lower one."""
        low, high = sorted((self.first.value, self.second.value))
        return high / low - 1


# Sources that measured their recipes twice: two operators' H100s (1CC is the second), two releases of NeMo.
_TWICE: Final = ("lambda", "nemo-launcher", "nemo-2407")


def repeats(rows: Iterable[Row]) -> list[Repeat]:
    """Pairs of readings of one recipe on one GPU, from sources that give two. Such readings differ: no prediction can be nearer to both."""
    seen: dict[tuple[object, ...], Row] = {}
    found = []
    for row in rows:
        if _measured_twice(row):
            first = seen.setdefault(_recipe_key(row), row)
            if first is not row and (first.gpu, first.group) != (row.gpu, row.group):
                found.append(Repeat(first, row))
    return found


def _measured_twice(row: Row) -> bool:
    if row.group not in _TWICE or row.metric not in {"throughput", "tokens_per_s_per_gpu"}:
        return False
    # One of NCF's readings is 28 times its twin: something else was counted.
    return row.group != "lambda" or ("H100 80GB SXM5" in row.gpu and row.model != "NCF")


def _recipe_key(row: Row) -> tuple[object, ...]:
    gpu = row.gpu.removeprefix("1CC ").removeprefix("8x ")
    # Virtual pipeline stages are printed by one of the two releases only.
    strategy = re.sub(r"VP\S+ ", "", row.strategy)
    return row.model, row.task, gpu, row.gpus, strategy, row.seq_len, row.micro_batch, row.accumulation, row.precision, row.metric
