"""The registry: every quantity is told in full, and nothing else gets into a Run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from membound import units
from membound.errors import InputError, UnitError, UnknownNameError
from membound.run import quantities
from membound.run.schema import Missing, Value
from membound.trace.schema import CATEGORIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "quantities.md"
DESIGNED = (
    "gpu.memory.allocated.peak", "gpu.memory.reserved.peak", "gpu.memory.used.peak", "gpu.memory.active.peak", "gpu.memory.capacity",
    "gpu.memory.context", "host.memory.used.peak", "host.memory.pinned.peak", "host.memory.pageable.peak", "host.memory.capacity",
    "host.memory.bandwidth.mean", "step.time", "step.time.forward", "step.time.backward", "step.time.optimizer", "step.time.exposed_communication",
    "step.time.exposed_offload", "step.time.idle", "tokens.rate", "tokens.rate.useful", "samples.rate", "flops.model", "mfu", "gpu.busy",
    "hbm.traffic.read", "hbm.traffic.write", "hbm.bandwidth.mean", "hbm.bandwidth.peak", "hbm.utilisation.mean", "hbm.utilisation.peak",
    "hbm.capacity.utilisation", "pcie.bandwidth.h2d.mean", "pcie.bandwidth.d2h.mean", "nvlink.bandwidth.mean", "gpu.power.mean", "gpu.power.peak",
    "gpu.energy.step", "gpu.temperature.mean", "gpu.temperature.peak", "hbm.temperature.mean", "hbm.temperature.peak", "cpu.utilisation.mean",
    "model.parameters", "model.parameters.trained",
)  # fmt: skip


def value(unit: str = "B", number: float = 2.0, low: float = 1.0, high: float = 3.0) -> Value:
    return Value(number, unit, low, high, "for the test")


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text() == quantities.markdown()


@pytest.mark.parametrize("name", [*DESIGNED, *(f"gpu.memory.{category}" for category in CATEGORIES)])
def test_holds_what_the_design_lists(name: str) -> None:
    assert quantities.quantity(name).name == name


@pytest.mark.parametrize("known", quantities.QUANTITIES.values(), ids=lambda known: known.name)
def test_each_is_told_in_full(known: quantities.Quantity) -> None:
    assert known.meaning.endswith(".")
    assert known.measured
    assert known.predicted
    assert "|" not in known.meaning + known.measured + known.predicted
    assert units.show(1.5, known.unit)
    assert f"| `{known.name}` | {known.unit} |" in quantities.markdown()


def test_good_values_pass() -> None:
    quantities.validate({"gpu.memory.used.peak": value(), "mfu": value("1"), "step.time": Missing("not priced")})


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean .*gpu\.memory\.used\.peak"):
        quantities.validate({"gpu.memory.used.peek": value()})
    with pytest.raises(UnknownNameError):
        quantities.validate({"speed": Missing("no")})


def test_another_unit_is_refused() -> None:
    with pytest.raises(UnitError, match="its unit is B"):
        quantities.validate({"gpu.memory.used.peak": value("GiB")})


@pytest.mark.parametrize("bad", [value(low=2.5), value(high=1.5), value(number=math.nan), value(high=math.inf), value(low=-math.inf)])
def test_a_band_holds_its_value(bad: Value) -> None:
    with pytest.raises(InputError, match="low <= value <= high"):
        quantities.validate({"gpu.memory.used.peak": bad})
