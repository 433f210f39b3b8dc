"""The page of the report's study in a real browser: silent, alone, every figure drawn, all curves of a job zoom together, fit for a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from membound.report.page import files
from membound.study.hbm_fine_tuning import page
from tests.study.hbm_fine_tuning import study_runs
from tests.study.hbm_fine_tuning.test_for_real import AT_2619, measured_book

HOSTILE = "</script><script>window.owned=1</script><img src=x onerror=window.owned=2>"
TIMES = "[...document.querySelectorAll('figure.time')].map((figure) => figure.chart)"


@pytest.fixture(scope="module")
def study_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of the study; one job failed with words that nobody should run."""
    return files.write(page.page(study_runs.book(frozenset({"dlrm"}), HOSTILE)), tmp_path_factory.mktemp("study"))


@pytest.fixture
def reading(browser: Any, study_page: Path) -> Any:
    browser.open(study_page)
    return browser


def test_it_is_silent_alone_and_inert(browser: Any, study_page: Path) -> None:
    browser.requests()
    browser.open(study_page)
    assert browser.console() == []
    assert {address.partition(":")[0] for address in browser.requests()} <= {"file", "data", "blob"}
    assert browser.run("return window.owned") is None
    assert HOSTILE in browser.run("return document.body.textContent")


def test_every_figure_is_drawn(reading: Any) -> None:
    curves = reading.run(f"""return {TIMES}.map((chart) => {{
        const canvas = chart.plot.ctx.canvas, pixels = chart.plot.ctx.getImageData(0, 0, canvas.width, canvas.height).data;
        return new Set(new Uint32Array(pixels.buffer)).size; }})""")
    assert len(curves) == 14
    assert all(colours > 8 for colours in curves)
    seen = "[...document.querySelectorAll('.picture svg')].filter((svg) => svg.getBoundingClientRect().width)"
    # Figures 1 to 6, 11, 17 to 19, 24, 25a and b, and five of our own.
    heights = reading.run(f"return {seen}.map((svg) => svg.getBoundingClientRect().height)")
    assert len(heights) == 18
    assert min(heights) > 100


def test_the_agreement_comes_first(reading: Any) -> None:
    first = reading.run("return document.querySelector('figure, table').textContent")
    assert "Agreement with the report" in first


def test_figures_of_one_job_zoom_together(reading: Any) -> None:
    reading.wait_for("await document.querySelector('figure.time').chart.group.zoom(1, 2); return true")
    spans = reading.run(f"return {TIMES}.map((chart) => [chart.spec.title.split(':')[0], chart.plot.scales.x.min, chart.plot.scales.x.max])")
    zoomed = {name for name, low, high in spans if (low, high) == (1, 2)}
    assert zoomed == {"Llama 7B, ZeRO-1"}
    assert all((low, high) == (1, 2) for name, low, high in spans if name in zoomed)


def test_on_a_phone_nothing_is_wider_than_the_phone(browser: Any, study_page: Path) -> None:
    browser.open(study_page, width=390, height=800)
    assert browser.run("return document.documentElement.scrollWidth") <= 390


def test_with_measured_runs_on_it_says_which_and_is_as_silent(browser: Any, tmp_path: Path) -> None:
    browser.open(files.write(page.page(measured_book(AT_2619, {"dlrm.1593": HOSTILE})), tmp_path), width=390, height=800)
    assert browser.console() == []
    assert browser.run("return window.owned") is None
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    origins = browser.run("return [...document.querySelectorAll('figure.time')].map((figure) => figure.querySelector('.legend').textContent)")
    assert sum("measured" in text and "predicted" in text for text in origins) == len(origins)
