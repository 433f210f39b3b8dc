"""Figures 6, 11 and 19: what a faster memory clock brings, at the report's clocks and beyond them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any, Final

from membound.report.charts.bars import Bars, BarSeries
from membound.report.charts.figure import Figure
from membound.report.charts.scale import say
from membound.run.schema import Value
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book
from membound.study.hbm_fine_tuning.plan import PLAUSIBLE

# Figure, job, the report's statement of its gain.
_FIGURES: Final = (("Figure 6", "llama-7b", "gain-7b"), ("Figure 11", "llama-65b", "gain-65b"), ("Figure 19", "llama-65b-qlora", "gain-qlora"))
_CLOCKS: Final = ("1593", "2000", "2619", "3200", "4000")
_ENDS: Final[tuple[Callable[[Any], float], ...]] = (attrgetter("value"), attrgetter("low"), attrgetter("high"))


def figure(book: Book, label: str) -> Figure:
    """The figure of the report called `label`."""
    job, name = next((job, claim) for each, job, claim in _FIGURES if each == label)
    title = f"{books.title(job)}: gain from a faster memory clock"
    why = book.without([f"{job}.{clock}" for clock in _CLOCKS])
    if why:
        return books.absent(label, title, why)
    gains = _gains(book, job)
    if any(each is None for each in gains.values()):
        return books.absent(label, title, "a run has no tokens.rate")
    claim = books.claim(name)
    stated = tuple(None if clock != "2619" or claim.value is None else claim.value - 1 for clock in _CLOCKS)
    series = [replace(_series("predicted", gains), published=stated)]
    others = {f"predicted, {books.setting(job)}": _gains(book, job + PLAUSIBLE), "measured": _measured(book, job)}
    series += [_series(words, some) for words, some in others.items() if any(some[clock] is not None for clock in _CLOCKS[1:])]
    return Bars(
        title=title, label=label, unit="1", categories=tuple(f"{clock} MHz" for clock in _CLOCKS), series=tuple(series),
        says=f"From 1593 to 2619 MHz ours gains {_said(gains['2619'])}, the report {say((claim.value or 1.0) - 1, '1')}; "
        f"at 4000 MHz it would gain {_said(gains['4000'], gains['2619'])} more.{_plausibly(book, job)}",
        source=f"ghost GPU replayed on hgx-h100 at each clock; published: {claim.at}",
    )  # fmt: skip


_Gains = dict[str, Value | None]
"""Rate over that at 1593 MHz, by clock."""


def _gains(book: Book, job: str) -> _Gains:
    return {clock: book.ratio(f"{job}.{clock}", f"{job}.1593", "tokens.rate") for clock in _CLOCKS}


def _measured(book: Book, job: str) -> _Gains:
    """Between clocks at which the job was measured."""
    found = {clock: book.alike([f"{job}.1593", f"{job}.{clock}"], "tokens.rate") for clock in _CLOCKS}
    return {clock: None if each is book else _gains(each, job)[clock] for clock, each in found.items()}


def _series(words: str, gains: _Gains) -> BarSeries:
    values, low, high = (tuple(None if gains[clock] is None else end(gains[clock]) - 1 for clock in _CLOCKS) for end in _ENDS)
    return BarSeries(words, values, low, high)


def _said(gain: Value | None, over: Value | None = None) -> str:
    return "nothing known" if gain is None else say(gain.value / (1.0 if over is None else over.value) - 1, "1")


def _plausibly(book: Book, job: str) -> str:
    gain = _gains(book, job + PLAUSIBLE)["2619"]
    return "" if gain is None else f" Under {books.setting(job)}, the setting that the report's words make most plausible, ours gains {_said(gain)}."
