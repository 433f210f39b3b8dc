"""What the law's launch prices add up to for a layer of real model code, beside what such a layer was measured to cost the host."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from membound.cost import profile
from membound.spec import catalogue, fields
from membound.spec.job import Job
from membound.study.predicting import Predictor

H100 = profile.shipped(catalogue.machine("h100-sxm").gpu)
SCRIPT = Path(__file__).resolve().parents[2] / "validation" / "compare_host.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The comparison as a module."""
    spec = importlib.util.spec_from_file_location("compare_host", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "compare_host", module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("engine", ["fsdp", "zero1", "zero3"])
def test_a_layer_under_an_engine_costs_what_it_was_measured_to(script: ModuleType, engine: str, tmp_path: Path) -> None:
    costs = [script.engine_cost(engine, phase, tmp_path)[0] for phase in ("forward", "backward")]
    # DDP's and ZeRO-1's forward, which have no price of their own, differ by as much from what the law makes of them.
    assert sum(cost.law for cost in costs) == pytest.approx(sum(cost.measured for cost in costs), rel=0.04)


def test_zero_3_hooks_modules_on_one_gpu_too(tiny_job: Job) -> None:
    hooked, plain = (_launched(tiny_job, stage) for stage in (3, 1))
    # Some forty modules a micro-step, forward and backward.
    assert hooked - plain > 20 * H100.launch["hooked"]


def _launched(job: Job, stage: int) -> float:
    recipe = job.recipe.model_copy(update={"engine": "deepspeed", "zero_stage": stage, "precision": "bf16-mixed"})
    machine = fields.with_values(catalogue.machine("h100-sxm"), {"host.call_time": 1.0}, "machine")
    return float(Predictor().replayer(job.model_copy(update={"recipe": recipe}), 1).on(machine).prices.launch.sum())


def test_real_model_code_costs_what_the_law_makes_of_its_calls(script: ModuleType) -> None:
    found = script.cost("gpt2 bf16")
    # docs/laws.md, what the host pays: 1.33 times its calls, where the law takes the median of four models on two hosts, 1.52.
    assert found.ratio == pytest.approx(1.33 / 1.52, abs=0.02)
    assert found.law == pytest.approx(1.52 * 0.84e-3, rel=0.02)


def test_the_layers_that_a_measured_pace_is_held_against_are_the_laws(script: ModuleType) -> None:
    written = json.loads((SCRIPT.parent / "h200" / "host.json").read_text())["layers"]
    assert set(written) == set(script.MODELS)
    title = "gpt2 bf16"
    assert written[title] == pytest.approx(script.cost(title).law, rel=0.02)
