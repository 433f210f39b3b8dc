"""The laws beside the kernels that their constants were read off: what docs/laws.md prints stays true."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from membound.spec import catalogue

ROOT = Path(__file__).parents[2]
MEASURED = [ROOT / "validation" / "kernels" / f"h100-sxm{part}.csv" for part in ("", "-quantised")]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """validation/compare_streaming.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("compare_streaming", ROOT / "validation" / "compare_streaming.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_table_of_the_page_is_what_the_script_finds(script: ModuleType) -> None:
    page = (ROOT / "docs" / "laws.md").read_text()
    lines = script.summary(script.compare(MEASURED, catalogue.machine("h100-sxm").gpu))
    assert {line[0] for line in lines} == set(script.FAMILIES)
    for line in lines:
        assert "| {} | {} | {:.1%} | {:.1%} | {:+.1%} |".format(*line) in page


def test_every_family_fits_its_measurements(script: ModuleType) -> None:
    for family, rows, median, worst, bias in script.summary(script.compare(MEASURED, catalogue.machine("h100-sxm").gpu)):
        assert rows > 3
        assert median < 0.13, family
        assert worst < 0.5, family
        assert abs(bias) < 0.15, family


def test_sequences_of_operators_are_no_operators(script: ModuleType) -> None:
    row = {"family": "loss", "op": "cross_entropy forward and backward", "shapes": "512,32000", "dtype": "float32", "notes": "graph"}
    assert script.call(row) is None
