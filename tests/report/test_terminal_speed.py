"""The speed part of what a person reads after `membound predict`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from membound.cost.resources import RESOURCES
from membound.report.inert import inert
from membound.report.terminal_speed import NAMES
from membound.run.schema import Missing, Run, Value
from tests.report.on_terminal import shown, together

SENSITIVITY = {"compute": 0.5, "hbm": 0.3, "launch": 0.196, "fixed": 0.004}
HOSTILE = "evil\x1b[31m[red]name[/red]\x07\n\u202edesrever"


def value(number: float, unit: str, spread: float = 0.1) -> Value:
    return Value(number, unit, number * (1 - spread), number * (1 + spread), "by hand")


SPEED = {
    "step.time": value(0.0005, "s"),
    "tokens.rate": value(5400.0, "token/s"),
    "tokens.rate.useful": value(3500.0, "token/s"),
    "mfu": value(0.42, "1"),
    "gpu.busy": value(0.95, "1"),
    "hbm.traffic.read": value(3 * 2**30, "B"),
    "hbm.traffic.write": value(2**30, "B"),
    "hbm.utilisation.mean": value(0.35, "1"),
    "hbm.utilisation.peak": value(0.86, "1"),
    "gpu.power.mean": value(443.0, "W"),
    "gpu.power.peak": value(616.0, "W"),
    "gpu.temperature.peak": value(61.0, "degC"),
    "hbm.temperature.peak": value(75.0, "degC"),
    "host.memory.bandwidth.mean": value(90e9, "B/s"),
    "cpu.utilisation.mean": value(0.07, "1"),
    "step.time.exposed_offload": value(0.0001, "s"),
}


@pytest.fixture
def timed(run: Run) -> Run:
    """The Run of these tests' Trace, with times."""
    return replace(run, values={**run.values, **SPEED}, about={**run.about, "sensitivity": SENSITIVITY})


def test_it_says_how_fast_and_what_is_used(timed: Run) -> None:
    said = together(timed)
    for words in (
        "step 500.0 µs 450 µs to 550 µs", "tokens/s GPU 3,500 useful · 5,400 with padding", "42 % MFU · 95 % busy",
        "4.00 GiB a step, 75 % read · 35 % used · 86 % at its peak", "443 W mean · 616 W peak", "61 degC die · 75 degC HBM",
    ):  # fmt: skip
        assert words in said
    assert said.index("FITS ON THE GPU") < said.index("Speed") < said.index("What a faster part would buy") < said.index("At the peak")


def test_bars_are_as_long_as_their_shares_and_the_largest_comes_first(timed: Run) -> None:
    lines = {line.split()[0]: line for line in shown(timed).splitlines() if "█" in line}
    assert list(lines) == ["compute", "HBM", "launching"]  # what is below half a per cent is left out
    assert lines["compute"].count("█") / lines["HBM"].count("█") == pytest.approx(5 / 3, rel=0.1)
    assert "compute 1 % faster: a step 0.50 % (2.50 µs) shorter; all together: 1 %" in together(timed)


def test_every_resource_has_a_name() -> None:
    assert set(NAMES) == set(RESOURCES)


def test_the_host_is_told_of_where_something_is_offloaded(timed: Run) -> None:
    assert "DDR" not in together(timed)
    offloaded = replace(timed, job={**timed.job, "recipe": {**timed.job["recipe"], "offload": {"optimizer": "cpu", "params": "none"}}})
    waiting = replace(timed, about={**timed.about, "sensitivity": {"compute": 0.9, "ddr": 0.1}})
    for run in (offloaded, waiting):
        assert "host 90.0 GB/s DDR · 7 % CPU · 100 µs of a step waiting for it" in together(run)


def test_without_a_time_there_is_no_section_and_a_missing_one_has_its_reason(run: Run) -> None:
    assert "Speed" not in shown(run)
    said = together(replace(run, values={**run.values, "step.time": Missing("no step ended")}))
    assert "Speed" in said
    assert "step not known: no step ended" in said
    assert "What a faster part would buy" not in said


def test_what_is_missing_beside_the_step_is_left_out(run: Run) -> None:
    said = shown(
        replace(run, values={"step.time": SPEED["step.time"], "gpu.power.mean": Missing("no sensor"), "gpu.power.peak": SPEED["gpu.power.peak"]})
    )
    assert "616 W peak" in said
    assert "W mean" not in said
    assert "MFU" not in said


@pytest.mark.parametrize("width", [24, 40, 60, 80, 100, 200])
@pytest.mark.parametrize("colour", [False, True])
def test_no_line_is_wider_than_the_terminal(timed: Run, width: int, colour: bool) -> None:
    lines = shown(timed, width, colour).splitlines()
    assert max(len(inert(line, 10**4)) for line in lines) <= width


def test_a_terminal_of_ascii_alone_gets_ascii_alone(timed: Run) -> None:
    said = shown(timed, 72, encoding="ascii")
    assert said.isascii()
    assert "2.50 us" in said
    assert "?" not in said


@pytest.mark.parametrize("sensitivity", [None, [], {"compute": None, HOSTILE: 0.5}, {}, {"compute": True}])
def test_what_a_foreign_run_says_is_inert(timed: Run, sensitivity: Any) -> None:
    said = shown(replace(timed, about={"sensitivity": sensitivity}))
    assert not any(sign in said for sign in ("\x1b", "\x07", "\u202e"))
