"""What the host pays for calls: model code's against all others', and whose host a profile's prices are of."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from membound.cost import launch, profile, profile_text
from membound.replay.time import Replayer
from membound.spec import catalogue, fields
from membound.spec.job import Job
from membound.study.predicting import Predictor

H100 = profile.shipped(catalogue.machine("h100-sxm").gpu)
KINDS = np.arange(len(launch.KINDS))


def prices(model: bool, views: int = 0, modules: int = 0, hooks: np.ndarray | None = None) -> np.ndarray:
    size = len(KINDS)
    flags, counts = np.full(size, model), np.full(size, 1)
    return launch.launch_seconds(H100, KINDS, flags, np.zeros(size, np.bool_), counts * views, counts * modules, counts, hooks)


def test_calls_of_model_code_take_longer_and_no_others() -> None:
    plain, model = prices(False), prices(True)
    kernel = launch.KINDS.index("kernel")
    assert 1.3 < model[kernel] / plain[kernel] < 1.9
    others = np.arange(len(KINDS)) != kernel
    assert model[others] == pytest.approx(plain[others])
    around = [prices(model, views=2, modules=3) - prices(model) for model in (False, True)]
    assert around[1] / around[0] == pytest.approx(model[kernel] / plain[kernel])


def test_an_engines_hooks_were_measured_in_place() -> None:
    size = len(KINDS)
    three, price = np.full(size, 3), H100.launch
    forward, backward = (launch.hook_seconds(H100, three, np.full(size, where)) for where in (False, True))
    assert forward == pytest.approx(3 * price["hooked"])
    assert backward == pytest.approx(3 * price["hooked_backward"])
    for model in (False, True):
        assert prices(model, modules=3, hooks=forward) - prices(model, modules=3) == pytest.approx(forward)


def test_modules_that_run_again_in_backward_are_hooked_as_in_forward() -> None:
    one, backward = np.full(1, 1), np.full(1, True)
    half = launch.hook_seconds(H100, one, backward, again=0.5)
    assert half == pytest.approx((H100.launch["hooked"] + H100.launch["hooked_backward"]) / 2)


@pytest.fixture(scope="module")
def replayer(tiny_job: Job) -> Replayer:
    return Predictor().replayer(tiny_job, 1)


def test_a_calibrated_hosts_calls_are_taken_as_they_are(replayer: Replayer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = catalogue.machine("h100-sxm")

    def launched(call_time: float | None = None) -> float:
        asked = machine if call_time is None else fields.with_values(machine, {"host.call_time": call_time}, "machine")
        return float(replayer.on(asked).prices.launch.sum())

    shipped, as_measured = launched(), launched(1.0)
    assert shipped == pytest.approx(0.45 * as_measured)
    monkeypatch.setenv("MEMBOUND_PROFILES", str(tmp_path))
    (tmp_path / "h100-sxm.yaml").write_text(profile_text.text(dataclasses.replace(H100, source="a test")))
    assert launched() == pytest.approx(as_measured, rel=1e-3)
    assert launched(0.5) == pytest.approx(0.5 * as_measured, rel=1e-3)
