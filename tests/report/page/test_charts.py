"""Figures as values and as drawings: every kind has its data as CSV, shows its names, and lets nothing of a name's become markup."""

from __future__ import annotations

import csv
import io
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.errors import InputError
from membound.report.charts.bars import Bars, BarSeries
from membound.report.charts.bubbles import Axis, Bubble, Bubbles
from membound.report.charts.data import Amount, Column, Data
from membound.report.charts.diagram import Diagram
from membound.report.charts.figure import Figure, Reference
from membound.report.charts.lines import Line, Lines
from membound.report.charts.scale import between, clock, plain, say, scale
from membound.report.charts.stacked_bars import Part, StackedBars
from membound.report.charts.table import Table
from membound.report.page.drawing import NARROW, WIDE
from membound.report.page.parts import part
from membound.report.page.svg import clean
from membound.run.schema import Missing

HOSTILE = ("<script>alert(1)</script>", "a & b", '"quoted"', "$x_{1}$", "模型 🐍", "=1+1", "\x1b[31mred", "a" * 400, "")
LINE = Reference(0.5, "published", "the report, Figure 6")


def bars(name: str) -> Bars:
    series = BarSeries(name, (0.1, None), (0.08, None), (0.2, None), (0.15, 0.033)), BarSeries("measured", (0.12, 0.02))
    return Bars(title=name, unit="1", categories=(name, "other"), series=series, references=(LINE,))


def stacked(name: str) -> StackedBars:
    parts = Part(name, (14e9, 2e9)), Part("states", (84e9, None))
    return StackedBars(title=name, unit="B", categories=(name, "ZeRO-3"), parts=parts, published=(120e9, None))


def bubbles(name: str) -> Bubbles:
    found = tuple(Bubble(name if at == 0 else f"model {at}", 0.5 + at / 50, 0.5 - at / 50, at / 10, name, at == 3) for at in range(6))
    return Bubbles(title=name, x=Axis(name, "1"), y=Axis("writes", "1"), size=Axis("use", "1"), bubbles=found, x_references=(LINE,))


def lines(name: str) -> Lines:
    found = (
        Line(name, (1.6e9, 2.6e9), (3000.0, 3400.0), (2900.0, 3300.0), (3100.0, 3500.0)),
        Line("other", (2.6e9, 1.6e9), (5.0, 4.0), published=True),
    )
    return Lines(title=name, x=Axis("clock", "Hz"), y=Axis(name, "token/s"), lines=found, y_references=(Reference(3200.0, name),))


DRAWN: tuple[Callable[[str], Figure], ...] = (bars, stacked, bubbles, lines)
kinds = pytest.mark.parametrize("make", DRAWN, ids=lambda make: make.__name__)


def rows_of(data: Data | None) -> list[list[str]]:
    assert data is not None
    return list(csv.reader(io.StringIO(data.csv())))


def words_of(picture: str) -> str:
    return " ".join(ElementTree.fromstring(picture).itertext())


@kinds
@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_a_drawing_shows_its_names_and_fits_its_width(make: Callable[[str], Figure], width: str) -> None:
    picture = part(make("Llama 7B"), "f1", "Figure 1")["pictures"][width]
    assert "Llama 7B" in words_of(picture)
    assert ElementTree.fromstring(picture).get("viewBox", "").split()[2] == str(WIDE if width == "wide" else NARROW)


@kinds
def test_a_drawing_follows_the_theme(make: Callable[[str], Figure]) -> None:
    picture = part(make("Llama 7B"), "f1", "Figure 1")["pictures"]["wide"]
    assert "var(--c0)" in picture
    assert "#" not in picture.replace("url(#f1-", "").replace('href="#f1-', "")


@kinds
@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_can_be_drawn_and_stays_text(make: Callable[[str], Figure], name: str) -> None:
    for picture in part(make(name), "f1", "Figure 1")["pictures"].values():
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(picture).iter()}
        assert tags <= {"svg", "g", "path", "text", "tspan", "title", "use", "defs", "clipPath", "rect", "pattern"}


@kinds
def test_its_data_are_whole_and_no_cell_is_a_formula(make: Callable[[str], Figure]) -> None:
    rows = rows_of(make("=HYPERLINK()").data())
    assert len({len(row) for row in rows}) == 1
    assert len(rows) > 2
    assert not [cell for row in rows for cell in row if cell.startswith("=")]


def test_bars_carry_value_band_and_published_value() -> None:
    rows = rows_of(bars("7B").data())
    assert rows[0] == ["category", "series", "value (1)", "low (1)", "high (1)", "published (1)"]
    assert rows[1] == ["7B", "7B", "0.1", "0.08", "0.2", "0.15"]
    assert rows[3] == ["other", "7B", "", "", "", "0.033"]


def test_a_value_that_is_missing_is_said_not_drawn_as_nothing() -> None:
    assert "none" in words_of(part(bars("7B"), "f1", "Figure 1")["pictures"]["wide"])


def test_published_values_are_named_with_their_source() -> None:
    assert part(bars("7B"), "f1", "Figure 1")["published"] == ["published 50.0 % (the report, Figure 6)"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Bars(title="t", unit="1", categories=("a", "b"), series=(BarSeries("s", (1.0,)),)),
        lambda: StackedBars(title="t", unit="B", categories=("a",), parts=(Part("p", (1.0, 2.0)),)),
        lambda: Table(title="t", columns=(Column("a"),), rows=(("x", "y"),)),
        lambda: Line("l", (1.0, 2.0), (1.0,)),
        lambda: part(Diagram(title="t", svg="<svg"), "f1", ""),
        lambda: part(Diagram(title="t", svg="<html/>"), "f1", ""),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_refused_in_one_line(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match="give") as refused:
        make()
    assert "\n" not in str(refused.value)


def test_amounts_are_shown_with_their_band_and_saved_in_si() -> None:
    cells = (("step.time", Amount(2.0, "s", 1.9, 2.1)), ("gpu.memory.used.peak", Amount(2.0**31, "B")), ("mfu", Missing("not priced")))
    table = Table(title="Values", columns=(Column("quantity"), Column("value")), rows=cells)
    shown = [(row[1]["text"], row[1]["note"]) for row in part(table, "f1", "Table 1")["table"]["rows"]]
    assert shown == [("2.000 s", "1.90 to 2.10 s"), ("2.000 GiB", ""), ("missing", "not priced")]
    assert rows_of(table.data()) == [
        ["quantity", "value", "value low", "value high"], ["step.time", "2.0", "1.9", "2.1"], ["gpu.memory.used.peak", "2147483648.0", "", ""],
        ["mfu", "", "", ""],
    ]  # fmt: skip


def test_a_long_table_shows_its_beginning_and_saves_all() -> None:
    table = Table(title="Long", columns=(Column("n"),), rows=tuple((at,) for at in range(1000)), shown=10)
    found = part(table, "f1", "Table 1")
    assert (len(found["table"]["rows"]), found["table"]["left_out"]) == (10, 990)
    assert found["csv"].count("\n") == 1001


class TestSvg:
    """What is taken out of a drawing that came from elsewhere."""

    @pytest.mark.parametrize(
        "inside",
        [
            "<script>alert(1)</script>", "<a href='https://example.org'><text>x</text></a>", "<image href='https://example.org/x.png'/>",
            "<foreignObject><body xmlns='http://www.w3.org/1999/xhtml'/></foreignObject>", "<style>@import url(https://example.org)</style>",
            "<rect onclick='alert(1)' onload='alert(1)' width='1'/>", "<use href='https://example.org#a'/>", "<rect fill='url(https://example.org)'/>",
            "<rect style='fill:url( //example.org)'/>", "<path style='background:u\\72l(https://example.org)'/>", "<animate attributeName='href'/>",
        ],
    )  # fmt: skip
    def test_nothing_but_drawing_is_left(self, inside: str) -> None:
        kept = clean(f'<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"><g>{inside}<circle r="4"/></g></svg>', "f1-")
        assert "circle" in kept
        for word in ("example", "alert", "script", "onclick", "foreign", "import", "animate"):
            assert word not in kept

    def test_names_are_its_own_and_still_meet(self) -> None:
        svg = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"><defs><path id="a" d="M0 0"/></defs>'
        kept = clean(svg + '<use xlink:href="#a"/><rect clip-path="url(#a)"/><rect id="unused"/></svg>', "f7-")
        assert 'id="f7-a"' in kept
        assert 'href="#f7-a"' in kept
        assert "url(#f7-a)" in kept
        assert "unused" not in kept

    def test_it_can_shrink(self) -> None:
        root = ElementTree.fromstring(clean('<svg xmlns="http://www.w3.org/2000/svg" width="300pt" height="200"/>', "f1-"))
        assert root.get("viewBox") == "0 0 300 200"
        assert "width" not in root.attrib


class TestWords:
    """Units and numbers as a page says them."""

    @pytest.mark.parametrize(
        ("value", "unit", "said"),
        [
            (79.6 * 2**30, "B", "79.6 GiB"), (3.35e12, "B/s", "3.35 TB/s"), (2619e6, "Hz", "2619 MHz"), (62.0, "degC", "62 °C"),
            (0.153, "1", "15.3 %"),
            (0.00123, "1", "0.12 %"), (0.0, "1", "0.0 %"), (8123.4, "token/s", "8,123 token/s"), (0.02, "s", "20.0 ms"), (math.nan, "W", "none"),
        ],
    )  # fmt: skip
    def test_values(self, value: float, unit: str, said: str) -> None:
        assert say(value, unit) == said

    def test_a_band_says_its_unit_once(self) -> None:
        assert between(1.9, 2.1, "s") == "1.90 to 2.10 s"
        assert between(0.9, 1.1, "s") == "900 ms to 1.10 s"

    @pytest.mark.parametrize(("seconds", "said"), [(3.7, "3.70 s"), (60, "1:00"), (2431.4, "40:31"), (3723, "1:02:03")])
    def test_moments(self, seconds: float, said: str) -> None:
        assert clock(seconds) == said

    @given(st.floats(1e-6, 1e15), st.sampled_from(["B", "B/s", "s", "1", "W", "degC", "Hz", "token/s", "FLOP/s", "J"]))
    def test_an_axis_is_labelled_with_small_numbers(self, largest: float, unit: str) -> None:
        found = scale(largest, unit)
        assert found.label
        if unit in {"B", "B/s", "FLOP/s"} and 1 <= largest < 1e15:
            assert 1 <= largest * found.factor < 1025
        assert plain(largest * found.factor)
