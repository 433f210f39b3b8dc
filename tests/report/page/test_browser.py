"""Pages in a real browser: silent console, no network, every peak at every zoom, figures in step, downloads right, names inert."""

from __future__ import annotations

import csv
import io
import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from selenium.webdriver.common.action_chains import ActionChains

from membound.report.charts.bars import Bars, BarSeries
from membound.report.charts.bubbles import Axis, Bubble, Bubbles
from membound.report.charts.figure import Figure, Reference
from membound.report.charts.lines import Line, Lines
from membound.report.charts.prose import Prose
from membound.report.charts.time_series import Series, TimeSeries
from membound.report.page import files, of_runs
from membound.report.page.html import html
from membound.report.page.page import Fact, Page, Section, Verdict
from membound.run.schema import Fits, Missing, Run

SECONDS = 120.0
# The one highest sample of the curve `busy`, as the fixtures make it.
SPIKE, SPIKE_GPU = 0.987, 1
HOSTILE = "</script><script>window.owned=1</script><img src=x onerror=window.owned=2>\"'`${window.owned=3}<!--"

# Every zoomable figure, as the page's scripts hold it.
CHARTS = "[...document.querySelectorAll('figure.time')].map((figure) => figure.chart)"
SPANS = f"return {CHARTS}.map((chart) => [chart.plot.scales.x.min, chart.plot.scales.x.max])"
HIGHEST = "return Math.max(...document.querySelector('#f2').chart.plot.data[3])"


@pytest.fixture(scope="module")
def long_run(make: Callable[..., Run]) -> Run:
    """Four GPUs for two minutes: six thousand samples each, more than a figure has pixels."""
    return make(gpus=4, seconds=SECONDS)


@pytest.fixture(scope="module")
def long_page(long_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return files.write(of_runs.page({"run": long_run}), tmp_path_factory.mktemp("long"))


@pytest.fixture
def reading(browser: Any, long_page: Path) -> Iterator[Any]:
    """The browser at the long page, whole run in view; whatever a test did there, nobody complained or asked for anything."""
    browser.open(long_page)
    yield browser
    assert browser.console() == []
    assert {address.partition(":")[0] for address in browser.requests()} <= {"file", "data", "blob"}


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of static figure."""
    names = ("Llama 7B", "Llama 65B", "BERT")
    figures: tuple[Figure, ...] = (
        Bars(title="Gains", says="7B gains most.", unit="1", categories=names, series=(BarSeries("predicted", (0.14, 0.03, 0.2)),)),
        Bubbles(
            title="Traffic", x=Axis("read", "1"), y=Axis("write", "1"), size=Axis("use", "1"),
            bubbles=tuple(Bubble(name, 0.5 + at / 10, 0.5 - at / 10, at + 1.0) for at, name in enumerate(names)),
        ),
        Lines(title="Clock", x=Axis("clock", "Hz"), y=Axis("rate", "token/s"), lines=(Line("7B", (1e9, 2e9), (3.0, 4.0)),)),
        Prose(title="Note", paragraphs=("One.", "Two.")),
    )  # fmt: skip
    page = Page("Gallery", (Section("Static", figures),), "All kinds.", (Verdict("Agrees", "2 of 3", True),), (Fact("jobs", "3"),))
    return files.write(page, tmp_path_factory.mktemp("gallery"))


def look(browser: Any, start: float, end: float) -> None:
    """Zoom as a script would."""
    browser.wait_for(f"await document.querySelector('figure.time').chart.group.zoom({start}, {end}); return true")


class TestOpening:
    """What a reader gets at once."""

    def test_every_curve_is_drawn_in_ink(self, reading: Any, long_run: Run) -> None:
        drawn = reading.run(f"""return {CHARTS}.map((chart) => {{
            const canvas = chart.plot.ctx.canvas, pixels = chart.plot.ctx.getImageData(0, 0, canvas.width, canvas.height).data;
            return [chart.spec.title, new Set(new Uint32Array(pixels.buffer)).size]; }})""")
        titles = {"Use of GPU and HBM", "HBM traffic", "GPU memory", "GPU power", "Temperature", "Clocks", "Host processors", "Host memory"}
        assert {title for title, _ in drawn} == titles
        assert all(colours > 8 for _, colours in drawn)

    def test_an_hour_of_eight_gpus_is_small_and_whole(self, browser: Any, make: Callable[..., Run], tmp_path: Path) -> None:
        run = make(gpus=8, seconds=3600)
        path = files.write(of_runs.page({"run": run}), tmp_path)
        assert path.stat().st_size < 6_000_000
        seconds = browser.open(path)
        first = browser.run("return performance.getEntriesByType('paint').map((each) => each.startTime / 1000)")
        print(f"\n{run.tables['gpu'].num_rows:,} rows, {path.stat().st_size / 1e6:.2f} MB: painted after {first} s, all drawn after {seconds:.2f} s")
        assert browser.run(HIGHEST) == pytest.approx(SPIKE * 100, abs=1e-9)
        levels = browser.run(f"return {CHARTS}.flatMap((chart) => chart.spec.series.map((series) => (series.fine ?? series.overview).level))")
        assert set(levels) == {0}
        assert browser.console() == []

    def test_on_a_phone_nothing_is_wider_than_the_phone(self, browser: Any, long_page: Path, gallery: Path) -> None:
        for path in (long_page, gallery):
            browser.open(path, width=390, height=800)
            assert browser.run("return document.documentElement.scrollWidth") <= 390
        shown = "[...document.querySelectorAll('.picture svg')].filter((svg) => svg.getBoundingClientRect().width)"
        assert set(browser.run(f"return {shown}.map((svg) => svg.viewBox.baseVal.width)")) == {350}

    def test_in_the_dark_paper_is_dark_and_ink_is_light(self, browser: Any, long_page: Path) -> None:
        ground = "return getComputedStyle(document.documentElement).backgroundColor"
        browser.open(long_page)
        light = browser.run(ground)
        browser.open(long_page, dark=True)
        assert (light, browser.run(ground)) == ("rgb(255, 255, 255)", "rgb(16, 21, 27)")

    def test_it_prints(self, reading: Any) -> None:
        assert reading.command("Page.printToPDF")["data"].startswith("JVBER")


class TestZoom:
    """One span of time for all figures, and no peak lost in any."""

    def test_the_peak_is_there_at_every_zoom(self, reading: Any) -> None:
        middle = round(SECONDS * 0.617 / 0.02) * 0.02
        for reach in (SECONDS, 20.0, 7.0, 1.3, 0.2, 0.05):
            look(reading, middle - reach, middle + reach)
            assert reading.run(HIGHEST) == pytest.approx(SPIKE * 100, abs=1e-9), reach

    def test_closest_in_every_sample_stands_alone(self, reading: Any) -> None:
        look(reading, 10.0, 10.4)
        chart = "document.querySelector('#f2').chart"
        assert reading.run(f"return {chart}.width") == pytest.approx(0.02)
        times = reading.run(f"return {chart}.plot.data[0]")
        assert np.allclose(np.diff(times), 0.02)

    def test_buttons_and_keys_move_all_figures_together(self, reading: Any) -> None:
        first = "document.querySelector('#f2 .buttons button"
        reading.run(f"{first}:nth-child(2)').click()")
        reading.until(f"return {CHARTS}.every((chart) => chart.plot.scales.x.max < 91)")
        assert len({tuple(span) for span in reading.run(SPANS)}) == 1
        reading.run("document.querySelector('#f4 .chart').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))")
        reading.until(f"return {CHARTS}.every((chart) => chart.plot.scales.x.max === 120)")
        assert reading.run(SPANS)[0] == [60, 120]
        reading.run("document.querySelector('#f3 .chart').dispatchEvent(new KeyboardEvent('keydown', {key: '0'}))")
        reading.until(f"return {CHARTS}.every((chart) => chart.plot.scales.x.min === 0 && chart.plot.scales.x.max === 120)")

    def test_dragging_over_one_figure_zooms_all(self, reading: Any) -> None:
        over = reading.driver.find_element("css selector", "#f2 .u-over")
        reading.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", over)
        ActionChains(reading.driver).move_to_element_with_offset(over, -100, 0).click_and_hold().move_by_offset(150, 0).release().perform()
        reading.until(f"return {CHARTS}.every((chart) => chart.plot.scales.x.max < 100)")
        spans = {tuple(span) for span in reading.run(SPANS)}
        assert len(spans) == 1
        ((start, end),) = spans
        assert end - start == pytest.approx(SECONDS * 150 / over.size["width"], rel=0.02)

    def test_hovering_over_one_figure_reads_all(self, reading: Any) -> None:
        over = reading.driver.find_element("css selector", "#f3 .u-over")
        reading.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", over)
        ActionChains(reading.driver).move_to_element_with_offset(over, 40, 0).perform()
        reading.until(f"return {CHARTS}.every((chart) => chart.plot.cursor.left > 0)")
        times = reading.run(f"return {CHARTS}.map((chart) => chart.plot.data[0][chart.plot.cursor.idx])")
        assert max(times) - min(times) <= 1.0
        words = reading.run("return [...document.querySelectorAll('#f2 .value, #f3 .value')].map((each) => each.textContent)")
        assert words
        assert all("%" in text or "B/s" in text for text in words)

    def test_marks_and_missing_samples_are_on_the_page(self, reading: Any) -> None:
        assert len(reading.run("return document.querySelector('#f2').chart.marks")) == 60 * 4
        look(reading, 36.5, 36.9)
        assert reading.run("return document.querySelector('#f5').chart.plot.data[1].every((value) => value === null)")

    def test_devices_can_be_told_apart(self, reading: Any) -> None:
        chart = "document.querySelector('#f2').chart"
        choose = "const list = document.querySelector('#f2 select'); list.value = '{}'; list.dispatchEvent(new Event('change'))"
        reading.run(choose.format("each"))
        names = reading.run(f"return {chart}.lines.map((line) => line.name)")
        assert names == [f"{curve}, GPU {gpu}" for curve in ("GPU busy", "HBM bandwidth used") for gpu in range(4)]
        styles = reading.run(f"return {chart}.lines.map((line) => line.colour + line.dash)")
        assert len(set(styles)) == len(styles)
        reading.run(choose.format(SPIKE_GPU))
        reading.until(f"return {chart}.plot.data.length === 7")
        assert reading.run(HIGHEST) == pytest.approx(SPIKE * 100)
        reading.run(choose.format("0"))
        assert reading.run(HIGHEST) < 95.1


class TestDownloads:
    """What a reader takes away."""

    def test_the_samples_in_view_as_csv(self, reading: Any, long_run: Run) -> None:
        look(reading, 30.0, 30.2)
        rows = list(csv.DictReader(io.StringIO(reading.download("f2", "csv").decode())))
        table = long_run.tables["gpu"]
        time, gpu = np.asarray(table.column("time")), np.asarray(table.column("gpu"))
        seen = (time > 30.0 - 1e-6) & (time < 30.2 + 1e-6)
        for curve, name in (("busy", "GPU busy"), ("hbm.utilisation", "HBM bandwidth used")):
            wanted = {(int(g), round(t, 2)): v for g, t, v in zip(gpu[seen], time[seen], np.asarray(table.column(curve))[seen], strict=True)}
            found = {(int(row["device"]), float(row["time (s)"])): float(row["mean (1)"]) for row in rows if row["curve"] == name}
            assert found == pytest.approx(wanted, abs=1e-4)
        assert {row["origin"] for row in rows} == {"measured"}

    def test_a_missing_sample_is_an_empty_cell(self, reading: Any) -> None:
        look(reading, 36.5, 36.7)
        rows = list(csv.DictReader(io.StringIO(reading.download("f5", "csv").decode())))
        assert {row["mean (W)"] for row in rows} == {""}

    def test_the_values_as_csv(self, reading: Any) -> None:
        rows = {row["quantity"]: row for row in csv.DictReader(io.StringIO(reading.download("f1", "csv").decode()))}
        assert (rows["step.time"]["value"], rows["step.time"]["value low"], rows["step.time"]["SI unit"]) == ("2.0", "1.9", "s")
        assert rows["host.memory.bandwidth.mean"]["value"] == ""

    def test_a_curve_as_picture(self, reading: Any) -> None:
        assert reading.download("f2", "png").startswith(b"\x89PNG")

    def test_a_drawing_as_picture_of_its_own(self, browser: Any, gallery: Path) -> None:
        browser.open(gallery)
        for figure in ("f1", "f2", "f3"):
            root = ElementTree.fromstring(browser.download(figure, "svg"))
            style = root.find("{http://www.w3.org/2000/svg}style")
            assert style is not None
            used = {
                word
                for element in root.iter()
                for value in element.attrib.values()
                for word in value.replace(")", "(").split("(")
                if word[:2] == "--"
            }
            assert used
            assert all(f"{name}:#" in (style.text or "") for name in used)
        assert browser.console() == []


class TestEverybody:
    """Screen readers, and those who use no mouse."""

    def test_each_figure_is_named_and_told_in_words(self, reading: Any) -> None:
        told = reading.run("return [...document.querySelectorAll('[role=img]')].map((each) => each.getAttribute('aria-label'))")
        assert told
        assert all(len(words) > 40 for words in told)
        named = "document.getElementById(each.getAttribute('aria-labelledby')).textContent.trim()"
        assert reading.run(f"return [...document.querySelectorAll('figure')].every((each) => {named})")

    def test_each_control_has_a_name(self, reading: Any) -> None:
        nameless = "return [...document.querySelectorAll('button, select')].filter((each) => !(each.ariaLabel || each.textContent.trim())).length"
        assert reading.run(nameless) == 0

    def test_behind_each_curve_stands_a_table_with_its_sensor(self, reading: Any) -> None:
        heads = reading.run("return [...document.querySelectorAll('#f5 details th[scope=col]')].map((each) => each.textContent)")
        cells = reading.run("return [...document.querySelectorAll('#f5 details tbody tr:first-child > *')].map((each) => each.textContent)")
        row = dict(zip(heads, cells, strict=True))
        assert (row["origin"], row["source"], row["native period"], row["why missing"]) == (
            "measured",
            "NVML (nvml)",
            "100 ms",
            "the driver was busy",
        )
        assert int(row["missing"]) == 49 * 4

    def test_headings_go_down_one_at_a_time(self, reading: Any) -> None:
        levels = reading.run("return [...document.querySelectorAll('h1, h2, h3, h4')].map((each) => Number(each.tagName[1]))")
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


class TestUnlikeCurves:
    """Curves that are kept coarsely, or that lie on other grids than their neighbours."""

    def test_coarse_bins_keep_the_peak_and_say_lowest_and_highest(self, browser: Any, long_run: Run, tmp_path: Path) -> None:
        path = tmp_path / "index.html"
        path.write_text(html(of_runs.page({"run": long_run}), 330_000))
        browser.open(path)
        middle = SECONDS * 0.617
        assert browser.run("return document.querySelector('#f2').chart.spec.series[0].overview.level") > 0
        for reach in (SECONDS, 10.0, 1.0):
            look(browser, middle - reach, middle + reach)
            assert browser.run(HIGHEST) == pytest.approx(SPIKE * 100, abs=1e-9), reach
        rows = [row for row in csv.DictReader(io.StringIO(browser.download("f2", "csv").decode())) if row["device"] == str(SPIKE_GPU)]
        (spike,) = [row for row in rows if float(row["highest (1)"]) == pytest.approx(SPIKE)]
        assert float(spike["lowest (1)"]) < float(spike["mean (1)"]) < SPIKE
        assert browser.console() == []

    def test_a_slow_curve_holds_its_value_beside_a_fast_one(self, browser: Any, tmp_path: Path) -> None:
        fast = Series("fast", "measured", (0,), np.arange(500.0)[None], 0.0, 0.02)
        slow = Series("slow", "published", (0,), np.array([[100.0, 300.0, np.nan, 200.0]]), 2.0, 2.0)
        figure = TimeSeries(title="Both", unit="W", series=(fast, slow), references=(Reference(400.0, "published peak", "section 3"),))
        browser.open(files.write(Page("Grids", (Section("One", (figure,)),)), tmp_path))
        chart = "document.querySelector('#f1').chart"
        times, slow_mean = browser.run(f"return [{chart}.plot.data[0], {chart}.plot.data[4]]")
        seen = dict(zip(np.round(times, 2), slow_mean, strict=True))
        assert [seen[time] for time in (1.0, 2.0, 3.98, 4.0, 5.98, 6.0, 7.98, 8.0, 9.98)] == [None, 100, 100, 300, 300, None, None, 200, 200]
        assert browser.run(f"return {chart}.spec.references") == [{"value": 400, "label": "published peak"}]
        assert "published peak 400 W (section 3)" in browser.run("return document.querySelector('#f1').textContent")
        assert browser.console() == []


def test_several_runs_lie_over_one_another(browser: Any, clocks: Mapping[str, Run], tmp_path: Path) -> None:
    browser.open(files.write(of_runs.page(clocks), tmp_path))
    names = browser.run(f"return {CHARTS}.find((chart) => chart.spec.title === 'GPU power').lines.map((line) => [line.name, line.curve.origin])")
    assert names == [[f"board power, {label}", run.origin] for label, run in clocks.items()]
    styles = browser.run(f"return {CHARTS}.map((chart) => chart.lines.map((line) => line.colour + line.dash))")
    assert {len(each) for each in styles} >= {len(clocks)}
    assert all(len(set(each)) == len(each) for each in styles)
    assert browser.console() == []


def test_names_from_outside_stay_names(browser: Any, make: Callable[..., Run], tmp_path: Path) -> None:
    run = make(seconds=4)
    marks = run.tables["marks"].set_column(4, "name", pa.array([HOSTILE] * run.tables["marks"].num_rows))
    curves = run.tables["curves"].set_column(3, "source", pa.array([HOSTILE] * run.tables["curves"].num_rows))
    odd = pa.table({HOSTILE: [HOSTILE, "=1+1"]})
    hostile = make(
        job={"model": HOSTILE, "gpus": HOSTILE, HOSTILE: HOSTILE}, machine={"name": HOSTILE, "gpu": {"name": HOSTILE}},
        fits=Fits(False, True, HOSTILE),
        values={"step.time": Missing(HOSTILE)}, tables={**run.tables, "marks": marks, "curves": curves, "odd": odd}, about={"notes": [HOSTILE]},
    )  # fmt: skip
    browser.open(files.write(of_runs.page({HOSTILE: hostile, "tame": run}, HOSTILE), tmp_path))
    look(browser, 0.0, 1.0)
    assert browser.run("return window.owned ?? null") is None
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.run("return document.querySelector('h1').textContent") == HOSTILE
    assert browser.download("f3", "csv")
    assert browser.console() == []
