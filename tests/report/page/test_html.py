"""The document: numbered figures, a policy that forbids all network, nothing of a name's that could end a script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.errors import InputError, StorageError
from membound.report.charts.bars import Bars, BarSeries
from membound.report.charts.data import Column
from membound.report.charts.figure import Figure
from membound.report.charts.prose import Prose
from membound.report.charts.table import Table
from membound.report.page import files, of_runs
from membound.report.page.embed import json_text, policy
from membound.report.page.html import html
from membound.report.page.page import Page, Section, labels
from membound.run.schema import Run

BARS = Bars(title="Bars", unit="W", categories=("a",), series=(BarSeries("power", (1.0,)),))
TABLE = Table(title="Table", columns=(Column("a"),), rows=(("b",),))


class Document(HTMLParser):
    """The elements of a page, and the scripts that a browser would run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}", {}))

    def handle_data(self, data: str) -> None:
        tag, given = self.elements[-1] if self.elements else ("", {})
        if tag == "script" and "type" not in given:
            self.scripts.append(data)

    def attributes(self, name: str) -> list[str]:
        """The values of an attribute, whatever its element."""
        return [value or "" for _, given in self.elements for key, value in given.items() if key == name]


def page(*figures: Figure) -> Page:
    return Page("Title", (Section("One", figures),))


def test_figures_and_tables_are_counted_apart_and_own_numbers_are_kept() -> None:
    own = Bars(title="Bars", unit="W", categories=("a",), series=(), label="Figure 2")
    figures = (BARS, TABLE, own, Prose(title="Note", paragraphs=("x",)), Bars(title="c", unit="W", categories=(), series=()))
    found = labels(page(*figures))
    assert [found[id(figure)] for figure in figures] == ["Figure 1", "Table 1", "Figure 2", "", "Figure 3"]


def test_the_policy_forbids_network_and_every_script_but_the_page_s_own(run: Run) -> None:
    document = Document(html(of_runs.page({"run": run})))
    (text,) = [given["content"] or "" for tag, given in document.elements if tag == "meta" and given.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in text.split("; "))
    (script,) = document.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert rules["img-src"] == "data: blob:"
    assert not {"connect-src", "frame-src", "font-src", "media-src"} & rules.keys()


def test_nothing_points_outside(run: Run) -> None:
    document = Document(html(of_runs.page({"run": run})))
    for name in ("src", "href", "action", "poster", "srcset"):
        assert all(value.startswith(("#", "data:")) for value in document.attributes(name))
    assert not [key for _, given in document.elements for key in given if key.startswith("on")]


def test_the_same_runs_make_the_same_page(run: Run) -> None:
    assert html(of_runs.page({"run": run})) == html(of_runs.page({"run": run}))


def test_the_policy_of_no_script_allows_none() -> None:
    assert "script-src 'none'" in policy([])


@given(st.text())
def test_no_text_ends_the_script_that_holds_it(text: str) -> None:
    made = json_text({text: text})
    assert not re.search("[<>&\u2028\u2029]", made)
    assert json.loads(made) == {text: text}


def test_the_scripts_hold_nothing_that_ends_a_script() -> None:
    folder = resources.files("membound.report.page")
    scripts = [each for name in ("static", "vendor/uplot") for each in folder.joinpath(name).iterdir() if each.name.endswith(".js")]
    assert len(scripts) > 5
    assert not [each.name for each in scripts if re.search("</script|<!--", each.read_text(encoding="utf-8"), re.IGNORECASE)]


def test_the_vendored_code_comes_with_its_licence_and_version() -> None:
    folder = resources.files("membound.report.page") / "vendor" / "uplot"
    version = re.search(r"uPlot (\d+\.\d+\.\d+)", (folder / "README.md").read_text())
    assert version is not None
    assert f"(v{version[1]})" in (folder / "uPlot.iife.min.js").read_text(encoding="utf-8")[:200]
    assert "MIT License" in (folder / "LICENSE").read_text()
    assert f"uPlot {version[1]}" in html(page(BARS))


def test_the_example_in_the_docs_makes_a_page(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "page.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, "docs/page.md", "exec"), {"folder": tmp_path})
    assert "Gain from a faster memory clock" in (tmp_path / "index.html").read_text(encoding="utf-8")


class TestFiles:
    """The page on disk."""

    def test_a_page_takes_the_place_of_a_page(self, tmp_path: Path) -> None:
        first = files.write(page(BARS), tmp_path).read_bytes()
        second = files.write(page(TABLE), tmp_path)
        assert second.read_bytes() != first
        assert [path.name for path in tmp_path.iterdir()] == ["index.html"]

    def test_a_page_of_others_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "index.html").write_text("<h1>My home page</h1>")
        with pytest.raises(InputError, match="not written by membound"):
            files.write(page(BARS), tmp_path)
        assert (tmp_path / "index.html").read_text() == "<h1>My home page</h1>"

    def test_what_the_disk_refuses_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError):
            files.write(page(BARS), tmp_path / "file")


def test_a_page_keeps_to_the_size_that_is_asked(make: Callable[..., Run]) -> None:
    page_ = of_runs.page({"run": make(gpus=4, seconds=600)})
    whole, small = len(html(page_)), len(html(page_, 700_000))
    assert small < 750_000 < whole
