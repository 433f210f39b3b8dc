"""The page as one HTML document."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from membound.report.charts.colours import DASHES, css
from membound.report.charts.time_series import TimeSeries
from membound.report.inert import inert
from membound.report.page.embed import json_text, policy
from membound.report.page.page import Page, Section, labels
from membound.report.page.parts import part
from membound.report.page.time_parts import Blocks, moving

# What the product asks of a page: to stay under 6 MB. The rest is a margin for estimates.
MOST_BYTES: Final = 5_850_000
# Characters of a figure over time beside its samples, and of steps and phases: more than they take.
_OTHERS: Final = 8_000
_MARKS: Final = 150_000
_HERE: Final = Path(__file__).parent
_SCRIPTS: Final = ("blocks", "pyramid", "sampling", "marks", "lines", "chart", "group", "controls", "download", "pictures", "main")
MADE_BY: Final = "membound report"
"""Content of the meta element `generator`: what the page is known by."""


def html(page: Page, most_bytes: int = MOST_BYTES) -> str:
    """`page` as HTML of about `most_bytes` at most; the same page gives the same text. Raises `InputError` for a diagram that is no SVG."""
    named = labels(page)
    figures = [figure for section in page.sections for figure in section.figures]
    assert len({id(figure) for figure in figures}) == len(figures), "a figure stands on a page once"
    ids = {id(figure): f"f{index + 1}" for index, figure in enumerate(figures)}
    over_time = [figure for figure in figures if isinstance(figure, TimeSeries)]
    still = {id(figure): part(figure, ids[id(figure)], named[id(figure)]) for figure in figures if not isinstance(figure, TimeSeries)}
    blocks = Blocks()
    room = most_bytes - _size(still) - len(_script()) - len(_style()) - _OTHERS * len(figures) - _MARKS
    packed = dict(zip(map(id, over_time), moving(over_time, blocks, max(room, 0)), strict=True))
    parts = still | {id(figure): part(figure, ids[id(figure)], named[id(figure)], packed[id(figure)]) for figure in over_time}
    sections = [_section(section, f"s{index + 1}", [parts[id(f)] for f in section.figures]) for index, section in enumerate(page.sections)]
    given = {"page": page, "sections": sections, "blocks": blocks.texts, "script": _script(), "style": _style(), "made_by": MADE_BY}
    return _template().render(policy=policy([_script()]), **given)


def _section(section: Section, name: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": name, "title": inert(section.title, 160), "says": inert(section.says, 1600), "figures": parts}


def _size(parts: dict[int, dict[str, Any]]) -> int:
    """Characters of what is not over time, roughly: drawings, tables and their CSV."""
    return sum(len(str(each)) for each in parts.values())


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(_HERE / "static")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["json"] = lambda value: Markup(json_text(value))
    environment.filters["inert"] = lambda value: inert(value, 1600)
    return environment.get_template("page.html.j2")


@cache
def _script() -> str:
    charting = (_HERE / "vendor" / "uplot" / "uPlot.iife.min.js").read_text(encoding="utf-8")
    own = "\n".join((_HERE / "static" / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
    return f'{charting}\n(() => {{\n"use strict";\nconst DASHES = {json_text(DASHES)};\n{own}\n}})();\n'


@cache
def _style() -> str:
    charting = (_HERE / "vendor" / "uplot" / "uPlot.min.css").read_text(encoding="utf-8")
    own = (_HERE / "static" / "page.css").read_text(encoding="utf-8")
    light, dark = (";".join(f"{name}:{value}" for name, value in css(theme).items()) for theme in ("light", "dark"))
    return f"{charting}\n:root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root:not(.paper){{{dark}}}}}\n{own}"
