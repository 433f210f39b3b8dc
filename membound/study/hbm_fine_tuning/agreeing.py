"""How far the study agrees with the report: every statement beside ours, misses first; and where the report contradicts itself."""

from __future__ import annotations

from collections import Counter
from typing import Final

from membound.report.charts.data import Cell, Column, Noted
from membound.report.charts.table import Table
from membound.report.page.page import Verdict
from membound.run.schema import Missing
from membound.study.claims import published
from membound.study.claims import table as words
from membound.study.claims.agreement import Agreement
from membound.study.hbm_fine_tuning.book import Book, rows

_AGREE: Final = frozenset({"in band", "within tolerance"})
_FITS: Final = frozenset({"fits-gpu", "fits-host"})
_SIGNS: Final = {"miss": "✘ miss", "missing": "– missing", "within tolerance": "✔ within our aim", "in band": "✔ agrees"}


def counted(book: Book) -> str:
    """How many statements agree, in one sentence; whether a job fits is counted apart from numbers and orders."""
    fits = [each for each in book.agreements if each.claim.kind in _FITS]
    others = [each for each in book.agreements if each.claim.kind not in _FITS]
    found = Counter(each.verdict for each in others)
    parts = [f"{found['in band']} lie within its words", f"{found['within tolerance']} within our aim", f"{found['miss']} are missed"]
    parts += [f"{found['missing']} have no value of ours"] if found["missing"] else []
    agree = sum(each.verdict == "in band" for each in fits)
    settled = [each for each in others if each.verdict == "miss" and each.settled_by]
    open_ones = f" {len(settled)} of the missed agree under another setting that the report leaves open." if settled else ""
    return (
        f"Of {len(others)} numbers and orders that the report states, {', '.join(parts[:-1])} and {parts[-1]}; "
        f"of {len(fits)} verdicts on what fits in memory, {agree} agree.{open_ones}{_plausibly(others)}"
    )


def _plausibly(others: list[Agreement]) -> str:
    """How many agree where each run is under its most plausible setting; '' where none of these was run."""
    if not any(each.plausible is not None for each in others):
        return ""
    agree = sum(each.plausible_verdict in _AGREE for each in others)
    by_choice = sum(each.rests and each.plausible_verdict in _AGREE for each in others)
    chosen = f", {by_choice} of them because the choice rests on them" if by_choice else ""
    return f" Under the settings that the report's words make most plausible, {agree} of the {len(others)} agree{chosen}."


def verdict(book: Book) -> Verdict:
    """The answer at the top of the page."""
    agree = sum(each.verdict in _AGREE for each in book.agreements)
    return Verdict("statements of the report that ours agrees with", f"{agree} of {len(book.agreements)}")


def agreement(book: Book) -> Table:
    """The table that opens the page."""
    columns = (
        Column("the report says"), Column("published"), Column("ours"), Column("ratio"), Column("verdict"), Column("most plausible setting"),
        Column("likely reason"),
    )  # fmt: skip
    return Table(
        title="Agreement with the report", label="Table A1", says=counted(book), columns=columns, rows=tuple(_row(each) for each in book.agreements),
        source=f"report: Micron (2024), CCM004-676576390-11765; ours: {_source(book)}",
        notes=(
            "Micro-batch, accumulation and recomputation are not in the report: ours are Stanford Alpaca's, so a miss may be another recipe.",
            *_reasons(),
            "A statement agrees where ours lies in what its words allow, or as near as we aim at.",
        ),
    )  # fmt: skip


def _reasons() -> tuple[str, ...]:
    """Why a setting is the most plausible, once for each."""
    found: dict[str, str] = {}
    for each in published.experiments().values():
        best = each.most_plausible
        if best is not None:
            found.setdefault(best.most_plausible, f"Most plausible for {each.section.partition(';')[0]}: {best.name}. {best.most_plausible}")
    return tuple(found.values())


def _source(book: Book) -> str:
    counts = Counter(each.origin for each in book.agreements)
    if not counts["measured"]:
        return "predicted from captured programs, nothing fitted to the report"
    return f"{counts['measured']} measured on this machine, where all runs of a statement were; the others predicted, nothing fitted to the report"


def _row(each: Agreement) -> tuple[Cell, ...]:
    claim = each.claim
    ratio = None if each.ratio is None or claim.kind not in {"value", "ratio", "median"} else f"{each.ratio:.3f}"
    return (
        Noted(claim.statement, f"{claim.run}; {claim.at}"),
        words.published(claim),
        _ours(each),
        ratio,
        _SIGNS[each.verdict],
        _plausible(each),
        each.reason,
    )


def _plausible(each: Agreement) -> Cell:
    """Ours under the most plausible setting, with its verdict; blank where that is the usual one."""
    if each.plausible is None or isinstance(each.plausible, Missing):
        return "" if each.plausible is None else each.plausible
    verdict = "chosen by this statement" if each.rests else _SIGNS[each.plausible_verdict]
    return Noted(words.show(each.claim, each.plausible.value), verdict)


def _ours(each: Agreement) -> Cell:
    """Ours with its band, and over the settings that were run."""
    claim, ours = each.claim, each.ours
    if isinstance(ours, Missing):
        return ours
    band = f"{words.show(claim, ours.low)} to {words.show(claim, ours.high)}" if ours.low < ours.high else ""
    origin = each.origin if each.origin != "predicted" else ""
    settings = "" if each.spread is None else ", ".join(f"{name}: {words.show(claim, value)}" for name, value in each.spread.values.items())
    return Noted(words.show(claim, ours.value), "; ".join(part for part in (origin, band, settings) if part))


def contradictions(book: Book) -> Table:
    """What in the report cannot be true together, with ours to each."""
    ours = {each.claim.id: each for each in book.agreements}
    found: list[tuple[Cell, ...]] = []
    for row in rows("contradictions.csv"):
        named = [ours[name] for name in row["claims"].split(";")]
        said = " / ".join(f"“{each.claim.statement}” ({each.claim.at})" for each in named)
        values = "; ".join(f"{each.claim.id}: {_short(each)}" for each in named)
        found.append((said, row["what"], values))
    return Table(
        title="Where the report contradicts itself",
        label="Table A2",
        says=f"{len(found)} pairs of statements cannot both hold, or need words that the report does not have.",
        columns=(Column("statements"), Column("what does not fit"), Column("ours")),
        rows=tuple(found),
    )


def _short(each: Agreement) -> str:
    return "missing" if isinstance(each.ours, Missing) else words.show(each.claim, each.ours.value)
