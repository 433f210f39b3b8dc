"""The page as a value: sections of figures under a header. What a study, or `membound report`, composes."""

from __future__ import annotations

from dataclasses import dataclass

from membound.report.charts.figure import Figure


@dataclass(frozen=True)
class Verdict:
    """An answer that a reader looks for first. `good` is None where it is neither good nor bad."""

    what: str
    words: str
    good: bool | None = None


@dataclass(frozen=True)
class Fact:
    """A key value of the header, in words, and what to know about it."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Section:
    """Figures under one heading; `says` leads in."""

    title: str
    figures: tuple[Figure, ...]
    says: str = ""


@dataclass(frozen=True)
class Page:
    """A whole page. All text in it is plain text."""

    title: str
    sections: tuple[Section, ...]
    says: str = ""
    verdicts: tuple[Verdict, ...] = ()
    facts: tuple[Fact, ...] = ()
    about: tuple[str, ...] = ()
    """Small print at the end: versions, assumptions, what was left out."""


def labels(page: Page) -> dict[int, str]:
    """The label of each figure by `id`: its own, else 'Figure 1', 'Table 1', ... past the labels that are taken; '' where it has none."""
    figures = [figure for section in page.sections for figure in section.figures]
    taken = {figure.label for figure in figures if figure.label}
    counts: dict[str, int] = {}
    found: dict[int, str] = {}
    for figure in figures:
        found[id(figure)] = figure.label or (_next(figure.counted_as, counts, taken) if figure.counted_as else "")
    return found


def _next(word: str, counts: dict[str, int], taken: set[str]) -> str:
    counts[word] = counts.get(word, 0) + 1
    while f"{word} {counts[word]}" in taken:
        counts[word] += 1
    return f"{word} {counts[word]}"
