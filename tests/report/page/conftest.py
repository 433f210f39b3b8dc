"""Runs with series, made by hand, and a headless browser to read their pages with."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from membound.run import store
from membound.run.schema import Fits, Missing, Run, Value
from membound.run.series import CURVE_TABLE, GPU_PERIOD, HOST_PERIOD, MARK_TABLE

GIB = 2**30
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DRIVER = "chromedriver"
# The page's own words for being ready.
_DRAWN = "return document.documentElement.getAttribute('data-drawn')"
_SLOW = 60.0
SPIKE = 0.987
"""The one highest sample of `busy`: of GPU `SPIKE_GPU`, at `spike_at`."""
SPIKE_GPU = 1


def spike_at(seconds: float) -> float:
    """When the spike is, s."""
    return round(seconds * 0.617 / GPU_PERIOD) * GPU_PERIOD


def gpu_table(gpus: int, seconds: float, clock: float, seed: int = 0) -> pa.Table:
    """Steps of 2 s with phases in them; noise on top; one spike that is a single sample."""
    random = np.random.default_rng(seed)
    samples = round(seconds / GPU_PERIOD)
    time, gpu = np.tile(np.arange(samples) * GPU_PERIOD, gpus), np.repeat(np.arange(gpus), samples)
    phase = (time % 2.0) / 2.0
    work = np.where(phase < 0.33, 0.72, np.where(phase < 0.9, 0.86, 0.35))
    # Sensors that have something new every 100 ms, and one that has every 20 ms.
    busy = held(np.clip(work + random.normal(0, 0.03, time.size), 0, 0.95))
    traffic = (work - 0.2) * clock * 2 * 640 * (1 + random.normal(0, 0.05, time.size))
    power = held(180 + 450 * work + random.normal(0, 4, time.size).round())
    busy[(gpu == SPIKE_GPU % gpus) & np.isclose(time, spike_at(seconds))] = SPIKE
    heat = 38 + 24 * (1 - np.exp(-time / 300)) + gpu
    columns: dict[str, Any] = {
        "time": time, "gpu": gpu.astype(np.int32), "busy": busy, "hbm.read": traffic * 0.6, "hbm.write": traffic * 0.4,
        "hbm.utilisation": traffic / (clock * 2 * 640), "memory.used": np.full(time.size, 71.0 * GIB) + (phase > 0.33) * 3 * GIB, "power": power,
        "temperature.gpu": np.round(heat), "temperature.hbm": np.round(heat * 1.2), "clock.memory": np.full(time.size, clock),
        "throttle": np.where(phase > 0.8, 4, 0),
    }  # fmt: skip
    # A sensor that was not to be read for a while.
    hole = (time > seconds * 0.3) & (time < seconds * 0.3 + 1)
    columns["power"] = pa.array(columns["power"], mask=hole)
    return pa.table(columns)


def held(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Every fifth value, five times."""
    return np.asarray(np.repeat(values[::5], 5)[: values.size])


def host_table(seconds: float) -> pa.Table:
    """One node."""
    time = np.arange(max(round(seconds / HOST_PERIOD), 1)) * HOST_PERIOD
    return pa.table({
        "time": time, "node": np.zeros(time.size, np.int32), "cpu.utilisation": 0.4 + 0.1 * np.sin(time / 7), "memory.used": 900.0 * GIB + time * 1e6,
    })  # fmt: skip


def mark_table(seconds: float) -> pa.Table:
    """Steps of 2 s, with three phases each."""
    rows = []
    for step in range(int(seconds // 2)):
        start = step * 2.0
        rows.append((start, start + 2, 0, "step", "step", step, -1))
        for name, begin, end in (("forward", 0.0, 0.66), ("backward", 0.66, 1.8), ("optimizer", 1.8, 2.0)):
            rows.append((start + begin, start + end, 0, "phase", name, step, 0))
    return pa.table([list(column) for column in zip(*rows, strict=True)] if rows else [[]] * 7, schema=MARK_TABLE)


def curve_table(table: pa.Table) -> pa.Table:
    """Where the curves come from."""
    names = [name for name in table.column_names if name not in {"time", "gpu"}]
    power = table.column("power").null_count
    return pa.table(
        [
            ["gpu"] * len(names), names, ["pm" if name.startswith("hbm") else "nvml" for name in names],
            ["CUPTI PM sampling" if name.startswith("hbm") else "NVML" for name in names],
            [0.02 if name.startswith("hbm") else 0.1 for name in names],
            [power if name == "power" else 0 for name in names], ["the driver was busy" if name == "power" else "" for name in names],
        ],
        schema=CURVE_TABLE,
    )  # fmt: skip


def exact(value: float, unit: str, spread: float = 0.0) -> Value:
    """A value with its band."""
    return Value(value, unit, value * (1 - spread), value * (1 + spread), "made by hand")


def make_run(gpus: int = 2, seconds: float = 60, clock: float = 2619e6, origin: Any = "measured", seed: int = 0, **changes: Any) -> Run:
    """A Run of Llama 7B."""
    table = gpu_table(gpus, seconds, clock, seed)
    values: dict[str, Value | Missing] = {
        "step.time": exact(2.0, "s", 0.05), "tokens.rate": exact(8123.4, "token/s", 0.05), "gpu.memory.used.peak": exact(74.0 * GIB, "B", 0.02),
        "gpu.memory.capacity": exact(79.6 * GIB, "B"), "host.memory.used.peak": exact(900.0 * GIB, "B"),
        "host.memory.capacity": exact(2048.0 * GIB, "B"),
        "gpu.power.mean": exact(520.0, "W", 0.08), "gpu.temperature.peak": exact(62.0, "degC"), "gpu.busy": exact(0.74, "1", 0.1),
        "hbm.utilisation.mean": exact(0.52, "1", 0.1), "host.memory.bandwidth.mean": Missing("no counter of the memory controller could be read"),
    }  # fmt: skip
    given: dict[str, Any] = {
        "origin": origin,
        "job": {"model": "llama-7b", "recipe": {"method": "full", "precision": "bf16-mixed", "micro_batch": 4}, "gpus": gpus},
        "machine": {"name": "hgx-h100", "gpu": {"name": "h100-sxm", "hbm": {"clock": clock}}},
        "fits": Fits(True, True),
        "values": values,
        "tables": {"gpu": table, "host": host_table(seconds), "marks": mark_table(seconds), "curves": curve_table(table)},
    }
    return Run(**(given | changes))


class Browser:
    """One window, its console, its network and its downloads."""

    def __init__(self, folder: Path) -> None:
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        options = ChromeOptions()
        options.binary_location = next(path for name in BROWSERS if (path := shutil.which(name)))
        for flag in (
            "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update",
            "disable-sync", "disable-dev-shm-usage", f"user-data-dir={folder / 'profile'}", "window-size=1400,1000",
        ):  # fmt: skip
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = Chrome(options=options, service=Service(shutil.which(DRIVER)))
        self.driver.set_script_timeout(_SLOW)
        self.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of Chrome's own protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def open(self, path: Path, width: int = 1400, height: int = 1000, dark: bool = False) -> float:
        """Open a page of this computer and wait until every curve is drawn; the seconds that it took."""
        self.driver.get("about:blank")
        self.console(), self.requests()
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        begun = time.monotonic()
        self.driver.get(path.absolute().as_uri())
        while self.run(_DRAWN) != "all":
            assert time.monotonic() - begun < _SLOW, self.console()
            time.sleep(0.02)
        return time.monotonic() - begun

    def run(self, script: str, *given: Any) -> Any:
        """The value of a script."""
        return self.driver.execute_script(script, *given)

    def wait_for(self, script: str, *given: Any) -> Any:
        """The value of a script that ends with a promise."""
        found = self.driver.execute_async_script(f"const done = arguments[arguments.length - 1]; (async () => {{ {script} }})().then(done)", *given)
        return found

    def until(self, script: str) -> None:
        """Wait until a script is true."""
        begun = time.monotonic()
        while not self.run(script):
            assert time.monotonic() - begun < _SLOW, script
            time.sleep(0.02)

    def console(self) -> list[str]:
        """What the console said since last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Every address asked for since last asked, whatever its kind."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def download(self, figure: str, what: str) -> bytes:
        """The file that a button of a figure gives."""
        for old in self.downloads.iterdir():
            old.unlink()
        self.run(f"document.querySelector('#{figure} button[data-do={what}]').click()")
        begun = time.monotonic()
        while not (found := [path for path in self.downloads.iterdir() if path.suffix == f".{what}" and path.stat().st_size]):
            assert time.monotonic() - begun < _SLOW, "no download"
            time.sleep(0.02)
        return found[0].read_bytes()

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        """End it."""
        self.driver.quit()


def need_a_browser() -> None:
    """Skip where there is none; fail where all checks must run."""
    absent = [name for name in (BROWSERS, (DRIVER,)) if not any(map(shutil.which, name))]
    if absent:
        words = f"no {' and no '.join(' or '.join(names) for names in absent)} on this computer"
        if os.environ.get("CI") == "true":
            pytest.fail(words)
        pytest.skip(words)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for the whole session; without one its tests are skipped, and fail where CI is true."""
    need_a_browser()
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.close()


@pytest.fixture(scope="session")
def make() -> Callable[..., Run]:
    """Makes Runs, see `make_run`."""
    return make_run


@pytest.fixture(scope="session")
def run() -> Run:
    """Two GPUs for a minute."""
    return make_run()


@pytest.fixture(scope="session")
def clocks() -> Mapping[str, Run]:
    """The same Job at two memory clocks, and predicted."""
    return {
        "1593 MHz": make_run(clock=1593e6, seed=1),
        "2619 MHz": make_run(clock=2619e6, seed=2),
        "2619 MHz, predicted": make_run(seconds=6, origin="predicted", seed=3),
    }


@pytest.fixture
def on_disk(tmp_path: Path) -> Callable[..., Path]:
    """Writes a Run as a folder."""

    def write(name: str = "run", made: Run | None = None) -> Path:
        store.write(made if made is not None else make_run(), tmp_path / name)
        return tmp_path / name

    return write
