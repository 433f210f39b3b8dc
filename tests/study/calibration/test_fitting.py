"""From measured kernels to a profile: an H100's own rows must give back the profile that ships, which was read off them by hand."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from membound.cost import profile
from membound.cost.launch import KINDS
from membound.errors import InputError, MeasureError, StorageError
from membound.measure import here
from membound.measure.calibrate import run
from membound.measure.calibrate.run import Measured
from membound.spec import catalogue
from membound.study.calibration import fitting, rates, samples
from membound.study.calibration.fitting import Fitted

KERNELS = Path(__file__).parents[3] / "validation" / "kernels"
FILES = [KERNELS / f"h100-sxm{part}.csv" for part in ("", "-quantised")]
MACHINE = catalogue.machine("hgx-h100").with_gpus(2)
SHIPPED = profile.shipped(MACHINE.gpu)


def measured() -> Measured:
    """All rows of the H100."""
    return Measured(tuple(row for file in FILES for row in run.read(file).rows), run.read(FILES[0]).environment)


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fitting.fit(measured(), MACHINE, "ours")


@pytest.mark.parametrize("family", SHIPPED.families)
def test_efficiencies_of_the_shipped_profile_come_out_again(fitted: Fitted, family: str) -> None:
    """Within the family's own band, which is what its kernels scatter by."""
    found, shipped = fitted.profile.rate(family), SHIPPED.rate(family)
    assert found.efficiency == pytest.approx(shipped.efficiency, rel=shipped.band)
    if not math.isinf(shipped.elements):
        assert found.elements == pytest.approx(shipped.elements, rel=max(shipped.band, 0.21))


def test_efficiencies_agree_within_3_percent_in_the_median(fitted: Fitted) -> None:
    off = [abs(fitted.profile.rate(name).efficiency / rate.efficiency - 1) for name, rate in SHIPPED.families.items() if name in fitted.kernels]
    assert len(off) > 30
    assert float(np.median(off)) < 0.03


def test_the_rest_of_the_shipped_profile_comes_out_too(fitted: Fitted) -> None:
    assert fitted.profile.l2_bandwidth == pytest.approx(SHIPPED.l2_bandwidth, rel=0.2)
    assert (fitted.profile.clock, fitted.profile.sms) == (SHIPPED.clock, SHIPPED.sms)
    assert set(fitted.profile.launch) >= set(KINDS)
    for kind, price in SHIPPED.launch.items():
        # The least of two runs ships, of which this is the slower; they differ by up to a factor of two.
        assert 0.75 * price <= fitted.profile.launch[kind] <= 2.2 * price, kind


def test_laws_with_constants_of_their_own_are_right_in_the_median_already(fitted: Fitted) -> None:
    assert set(fitted.profile.factors) == set(profile.FACTORS)
    assert all(factor == pytest.approx(1.0, abs=0.05) for factor in fitted.profile.factors.values())
    assert fitted.profile.copy_latency == pytest.approx(2.5e-6, rel=0.1)


def test_kernels_are_no_farther_off_than_with_what_was_read_off_by_hand(fitted: Fitted) -> None:
    groups = rates.grouped(samples.samples(measured().rows, MACHINE.gpu))
    assert error(groups, fitted.profile) < error(groups, SHIPPED)


def test_kernels_that_the_fit_did_not_see_are_known_almost_as_well() -> None:
    """Every other row of each rate, predicted from the rest."""
    found = sorted(samples.samples(measured().rows, MACHINE.gpu), key=lambda sample: sample.rate)
    seen, unseen = (rates.grouped(found[first::2]) for first in (0, 1))
    half = rates.fitted(rates.begin(SHIPPED, MACHINE.gpu), seen, MACHINE.gpu)
    assert error(unseen, half) < 1.1 * error(unseen, SHIPPED)


def error(groups: dict[str, list[rates.Group]], used: profile.Profile) -> float:
    """Mean of |ln(predicted / measured)| over all kernels."""
    found = [np.log(g.law.priced(g.kernels, MACHINE.gpu, used).seconds / g.seconds) for members in groups.values() for g in members]
    return float(np.abs(np.concatenate(found)).mean())


def test_a_gpu_at_half_the_speed_comes_out_so(fitted: Fitted) -> None:
    """All times twice as long: half the efficiency, half the elements, twice the start, whatever the reference says."""
    rows = tuple({**row, **{name: str(2 * float(row[name])) for name in ("seconds_cold", "seconds_warm") if row[name]}} for row in measured().rows)
    slow = fitting.fit(Measured(rows, {}), MACHINE, "ours").profile
    for name in ("pointwise", "copy", "norm_backward", "softmax_backward", "reduction"):
        assert slow.rate(name).efficiency == pytest.approx(fitted.profile.rate(name).efficiency / 2, rel=0.1), name
    assert slow.launch["kernel"] == pytest.approx(2 * fitted.profile.launch["kernel"], rel=0.01)
    assert {name: slow.factors[name] / fitted.profile.factors[name] for name in profile.FACTORS} == pytest.approx(
        dict.fromkeys(profile.FACTORS, 2.0), rel=0.02
    )


def test_without_rows_all_stays_as_it_was_and_is_named() -> None:
    empty = fitting.fit(Measured((), {}), MACHINE, "nothing")
    assert dict(empty.profile.families) == dict(SHIPPED.families)
    assert set(empty.profile.unmeasured) == set(SHIPPED.families)
    assert {f"factors.{law}" for law in profile.FACTORS} <= set(empty.kept)
    assert {f"launch.{kind}" for kind in SHIPPED.launch} <= set(empty.kept)
    assert empty.profile.factors == {}


def test_rows_that_failed_teach_nothing(fitted: Fitted) -> None:
    broken = tuple({**row, "seconds_cold": "", "seconds_warm": "", "notes": "failed: RuntimeError: out of memory"} for row in measured().rows)
    again = fitting.fit(Measured((*measured().rows, *broken), {}), MACHINE, "ours")
    assert dataclasses.replace(again.profile, source="") == dataclasses.replace(fitted.profile, source="")


def test_a_profile_of_another_gpu_starts_from_its_nearest_relative() -> None:
    l40s = catalogue.machine("l40s")
    began = rates.begin(profile.shipped(l40s.gpu), l40s.gpu)
    assert (began.gpu, began.sms, began.borrowed) == ("l40s", l40s.gpu.sms, False)
    assert began.rate("strided").elements < SHIPPED.rate("strided").elements * l40s.gpu.clock.max * l40s.gpu.sms / (1979e6 * 132)


class TestFromRows:
    def test_the_profile_its_rows_and_its_environment_lie_side_by_side(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEMBOUND_PROFILES", str(tmp_path / "mine"))
        outcome = fitting.from_rows(FILES, None, None)
        assert outcome.used
        assert sorted(file.name for file in (tmp_path / "mine").iterdir()) == ["h100-sxm.csv", "h100-sxm.json", "h100-sxm.yaml"]
        assert profile.profile_of(MACHINE.gpu).path == str(outcome.path)
        assert profile.profile_of(MACHINE.gpu).rate("pointwise") == pytest.approx(outcome.fitted.profile.rate("pointwise"))
        # What was kept fits to the same again.
        again = fitting.from_rows([tmp_path / "mine" / "h100-sxm.csv"], tmp_path / "again.yaml", None)
        assert not again.used
        assert again.fitted.profile.families == outcome.fitted.profile.families
        assert again.fitted.profile.factors == pytest.approx(outcome.fitted.profile.factors, rel=5e-3)

    def test_another_gpus_name_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="--machine: 'a100-sxm-80gb': its GPU has 108 multiprocessors, NVIDIA H100 80GB HBM3"):
            fitting.from_rows(FILES, tmp_path / "x.yaml", "a100-sxm-80gb")

    def test_an_unknown_gpu_asks_for_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "r.csv").write_text(FILES[1].read_text())
        (tmp_path / "r.json").write_text(json.dumps({"gpu": "NVIDIA Z9000", "sms": 132}))
        with pytest.raises(InputError, match="--machine: 'NVIDIA Z9000'"):
            fitting.from_rows([tmp_path / "r.csv"], tmp_path / "x.yaml", None)

    @pytest.mark.parametrize(("text", "why"), [("a,b\n1,2\n", "no column 'family'"), (None, "No such file")])
    def test_other_files_are_refused(self, tmp_path: Path, text: str | None, why: str) -> None:
        if text is not None:
            (tmp_path / "r.csv").write_text(text)
        with pytest.raises(MeasureError, match=why):
            fitting.from_rows([tmp_path / "r.csv"], tmp_path / "x.yaml", "h100-sxm")


class TestHere:
    """The whole way on a machine with two H100s, whose kernels are those that were measured once."""

    @pytest.fixture(autouse=True)
    def h100s(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEMBOUND_PROFILES", str(tmp_path / "mine"))
        monkeypatch.setattr(here, "gpus", lambda: ["NVIDIA H100 80GB HBM3"] * 2)
        monkeypatch.setattr(run, "measure", lambda out, seconds, dry, hear: measured())

    def test_the_gpu_is_recognised_and_its_profile_used_from_then_on(self) -> None:
        outcome = fitting.calibrate(240, None, None, dry=False, hear=lambda line: None)
        assert (outcome.machine.name, outcome.machine.gpus, outcome.used) == ("hgx-h100", 2, True)
        assert profile.profile_of(MACHINE.gpu).factors == pytest.approx(outcome.fitted.profile.factors)

    def test_calibrating_again_gives_the_same(self) -> None:
        first, second = (fitting.calibrate(240, None, None, dry=False, hear=lambda line: None).fitted.profile for _ in range(2))
        assert second.families == first.families
        assert second.factors == pytest.approx(first.factors, rel=5e-3)

    def test_a_place_that_cannot_be_written_is_known_before_anything_is_measured(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(run, "measure")
        (tmp_path / "taken").write_text("a file")
        with pytest.raises(StorageError, match="taken"):
            fitting.calibrate(240, tmp_path / "taken" / "mine.yaml", None, dry=False, hear=lambda line: None)


class TestMeasuring:
    """What runs on a bare machine, where PyTorch alone is installed."""

    FOLDER = Path(run.__file__).parent

    @pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
    def test_the_measuring_files_need_pytorch_alone(self, file: Path) -> None:
        allowed = {*sys.stdlib_module_names, "torch", "membound"}
        tree = ast.parse(file.read_text())
        assert top(tree) <= allowed
        reached = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and str(node.module).startswith("membound")}
        assert reached <= {
            "membound.errors",
            "membound.measure.calibrate",
            *(f"membound.measure.calibrate.{f.stem}" for f in self.FOLDER.glob("*.py")),
        }

    def test_the_script_runs_without_the_other_packages(self, tmp_path: Path) -> None:
        script = KERNELS.parent / "measure_kernels.py"
        block = "import sys, runpy; sys.modules.update(dict.fromkeys(['pydantic', 'yaml', 'pyarrow', 'typer', 'rich', 'psutil', 'transformers']))"
        code = f"{block}; sys.argv = ['x', 'rows.csv', '--dry', '--only', 'pointwise,host']; runpy.run_path({str(script)!r}, run_name='__main__')"
        done = subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(run.read(tmp_path / "rows.csv").rows) > 200

    def test_a_worker_that_fails_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        with pytest.raises(MeasureError, match="no CUDA device"):
            run.measure(tmp_path / "rows.csv", 10, dry=False, hear=lambda line: None)


def top(tree: ast.Module) -> set[str]:
    """Packages that are imported when the module is: not those within functions."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
    return names
