"""How near predictions come: errors by group and quantity, and verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from membound.study.validation.memory.comparison import Compared, Done
from membound.study.validation.memory.outcome import GROUPS

MEDIAN_LIMIT: Final = 0.02
"""The exam: median error of the allocated peak where the software matches."""
WORST_LIMIT: Final = 0.05
"""The exam: worst error there."""
VERDICT_LIMIT: Final = 0.95
"""The exam: share of right verdicts."""
SPARE: Final = 0.05
"""The exam: no false 'fits' where the prediction leaves this share of the memory free."""


@dataclass(frozen=True)
class Errors:
    """Of ratios predicted to measured: how far from 1."""

    count: int
    median: float
    """Median of |ratio - 1|."""
    worst: float
    """The ratio that is furthest from 1, less 1; with its sign."""
    bias: float
    """Median of ratio - 1; with its sign."""
    within_2: float
    """Share of ratios within 2 % of 1."""
    within_5: float
    """Share of ratios within 5 % of 1."""


def errors(ratios: Sequence[float]) -> Errors:
    """`Errors` of at least one ratio."""
    off = [ratio - 1 for ratio in ratios]
    size = [abs(each) for each in off]
    return Errors(
        len(off),
        statistics.median(size),
        max(off, key=abs),
        statistics.median(off),
        sum(each <= 0.02 for each in size) / len(off),
        sum(each <= 0.05 for each in size) / len(off),
    )


def by_group(done: Iterable[Done]) -> dict[tuple[str, str], Errors]:
    """Errors by group and quantity, in the order of `GROUPS`."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for each in done:
        if isinstance(each, Compared) and each.ratio is not None:
            ratios.setdefault((each.case.group, each.case.quantity), []).append(each.ratio)
    order = list(GROUPS)
    return {key: errors(ratios[key]) for key in sorted(ratios, key=lambda key: (order.index(key[0]), key[1]))}


@dataclass(frozen=True)
class Verdicts:
    """Fits or not, one verdict for each run, however many rows report it."""

    runs: int
    right: int
    false_fits: tuple[Compared, ...]
    """Said to fit, ran out of memory."""
    false_misfits: tuple[Compared, ...]
    """Said not to fit, ran."""

    @property
    def share(self) -> float:
        """Share of right verdicts."""
        return self.right / self.runs if self.runs else 1.0

    @property
    def grave(self) -> tuple[Compared, ...]:
        """False 'fits' with at least `SPARE` to spare."""
        return tuple(each for each in self.false_fits if each.spare >= SPARE)


def verdicts(done: Iterable[Done]) -> Verdicts:
    """The verdicts of all compared rows; rows of one run count once."""
    runs: dict[tuple[object, ...], Compared] = {}
    for each in done:
        if isinstance(each, Compared) and each.label is not None:
            runs.setdefault(_run_of(each), each)
    wrong = [each for each in runs.values() if each.fits != each.label]
    false_fits = tuple(each for each in wrong if each.fits)
    return Verdicts(len(runs), len(runs) - len(wrong), false_fits, tuple(each for each in wrong if not each.fits))


def _run_of(each: Compared) -> tuple[object, ...]:
    case = each.case
    # Two kernels of one framework may map to one Job; they are two runs. Allocated and nvidia-smi readings of one run are one.
    return case.job.model_dump_json(), case.machine, str(case.machine_changes), case.row.attention, case.row.source, each.on_host
