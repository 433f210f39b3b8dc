"""`membound doctor`: each curve has its sensor, or what is missing and what would cure it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from membound.cli import doctor_sensors
from membound.measure.examine import examine
from membound.measure.sensors import columns
from membound.measure.sensors.base import Gap, Validity
from membound.measure.sensors.nvml import Refused
from membound.measure.sensors.nvml_offer import no_driver
from membound.measure.source import REAL, Fault, Source
from tests.commands import from_nothing, membound
from tests.measure.sampling.conftest import H100


@pytest.fixture(scope="module")
def h100() -> dict[str, Any]:
    return examine(Source(H100, 2), 0.2)


@pytest.mark.parametrize("machine", [REAL, H100])
def test_every_curve_of_every_device_is_told_once(machine: str) -> None:
    found = examine(Source(machine), 0.0)
    gpus = [gpu["gpu"] for gpu in found["hardware"]["gpus"]] or [None]
    wanted = [("gpu", gpu, curve) for gpu in gpus for curve in columns.GPU] + [("host", 0, curve) for curve in columns.HOST]
    assert [(row["table"], row["key"], row["curve"]) for row in found["curves"]] == wanted
    for row in found["curves"]:
        assert row["missing"] if "missing" in row else row["source"]


def test_a_sensor_has_its_tier_its_period_and_its_cost(h100: dict[str, Any]) -> None:
    rows = {row["curve"]: row for row in h100["curves"] if row["table"] == "gpu" and row["key"] == 1}
    assert rows["hbm.utilisation"]["tier"] == "gpm"
    assert rows["hbm.utilisation"]["period_s"] == 0.1
    assert rows["hbm.utilisation"]["asked_every_s"] >= 0.1
    assert rows["power"]["cost_us"] > 0
    assert "--hbm pm" in rows["hbm.read"]["remedy"]


def test_gpus_that_are_alike_are_told_once_and_one_that_is_not_is_named() -> None:
    alike = list(doctor_sensors.lines(examine(Source(H100, 2), 0.0)))
    assert sum(line.strip().startswith("power ") for line in alike) == 1
    unlike = list(doctor_sensors.lines(examine(Source(H100, 2, (Fault("no_permission", "temperature", gpu=1),)), 0.0)))
    assert any("not to be had: temperature.gpu (1)" in line for line in unlike)
    assert any("cure: run as a user whom the driver permits" in line for line in unlike)


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (Refused(12), "libnvidia-ml.so.1 is not found", "install the NVIDIA driver"),
        (Refused(9), "the NVIDIA driver does not start", "nvidia-smi"),
        (ImportError(), "nvidia-ml-py is not installed", "pip install nvidia-ml-py"),
    ],
)
def test_without_a_driver_the_cure_is_named(error: Refused | ImportError, reason: str, remedy: str) -> None:
    gap = no_driver(error)
    assert isinstance(gap, Gap)
    assert gap.validity is Validity.ABSENT
    assert reason in gap.reason
    assert remedy in gap.remedy


def test_the_command_speaks_to_people_and_to_programs() -> None:
    command = ["doctor", "--recorded", H100]
    text = from_nothing(*command).stdout
    document = json.loads(membound(*command, "--json").stdout)
    assert document["machine"] == H100
    for row in document["sensors"]["curves"]:
        assert row["curve"] in text
    refused = membound(*command[:-1], "h100-synthetic")
    assert refused.returncode == 1
    assert refused.stderr.startswith("membound: machine: 'h100-synthetic': did you mean synthetic-h100")
    assert refused.stdout == ""
