"""What the law's launch prices add up to for a layer of real model code, beside what such a layer was measured to cost the host."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

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


def test_real_model_code_costs_what_the_law_makes_of_its_calls(script: ModuleType) -> None:
    found = script.cost("gpt2 bf16")
    # docs/laws.md, what the host pays: 1.33 times its calls, where the law takes the median of four models on two hosts, 1.52.
    assert found.ratio == pytest.approx(1.33 / 1.52, abs=0.02)
    assert found.law == pytest.approx(1.52 * 0.84e-3, rel=0.02)
