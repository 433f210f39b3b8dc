"""Figures 6, 11 and 19: what a faster memory clock brings, at the report's clocks and beyond them."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Final

from membound.report.charts.bars import Bars, BarSeries
from membound.report.charts.figure import Figure
from membound.report.charts.scale import say
from membound.run.schema import Value
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book

# Figure, job, the report's statement of its gain.
_FIGURES: Final = (("Figure 6", "llama-7b", "gain-7b"), ("Figure 11", "llama-65b", "gain-65b"), ("Figure 19", "llama-65b-qlora", "gain-qlora"))
_CLOCKS: Final = ("1593", "2000", "2619", "3200", "4000")
_ENDS: Final[tuple[Callable[[Value], float], ...]] = (attrgetter("value"), attrgetter("low"), attrgetter("high"))


def figure(book: Book, label: str) -> Figure:
    """The figure of the report called `label`."""
    job, name = next((job, claim) for each, job, claim in _FIGURES if each == label)
    title = f"{books.title(job)}: gain from a faster memory clock"
    why = book.without([f"{job}.{clock}" for clock in _CLOCKS])
    if why:
        return books.absent(label, title, why)
    claim = books.claim(name)
    gains = [book.ratio(f"{job}.{clock}", f"{job}.1593", "tokens.rate") for clock in _CLOCKS]
    found = [each for each in gains if each is not None]
    if len(found) < len(gains):
        return books.absent(label, title, "a run has no tokens.rate")
    stated = tuple(None if clock != "2619" or claim.value is None else claim.value - 1 for clock in _CLOCKS)
    series = BarSeries("predicted", tuple(g.value - 1 for g in found), tuple(g.low - 1 for g in found), tuple(g.high - 1 for g in found), stated)
    at = dict(zip(_CLOCKS, found, strict=True))
    return Bars(
        title=title, label=label, unit="1", categories=tuple(f"{clock} MHz" for clock in _CLOCKS), series=(series, *_measured(book, job)),
        says=f"From 1593 to 2619 MHz ours gains {say(at['2619'].value - 1, '1')}, the report {say((claim.value or 1.0) - 1, '1')}; "
        f"at 4000 MHz it would gain {say(at['4000'].value / at['2619'].value - 1, '1')} more.",
        source=f"ghost GPU replayed on hgx-h100 at each clock; published: {claim.at}",
    )  # fmt: skip


def _measured(book: Book, job: str) -> tuple[BarSeries, ...]:
    """Gains between clocks at which the job was measured; none where it was not at 1593 MHz and another."""
    books_of = {clock: book.alike([f"{job}.1593", f"{job}.{clock}"], "tokens.rate") for clock in _CLOCKS}
    gains = [None if each is book else each.ratio(f"{job}.{clock}", f"{job}.1593", "tokens.rate") for clock, each in books_of.items()]
    if not any(each is not None for each in gains[1:]):
        return ()
    values, low, high = (tuple(None if g is None else end(g) - 1 for g in gains) for end in _ENDS)
    return (BarSeries("measured", values, low, high),)
