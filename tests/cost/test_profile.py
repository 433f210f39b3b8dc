"""Profiles: as text and back, the user's own before those that ship, and what they say of themselves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from membound.cost import collectives, pcie, profile, profile_text
from membound.cost.attention_backward import AttentionBackward
from membound.cost.attention_forward import AttentionForward
from membound.cost.law import Kernels, Law, Shape
from membound.cost.matmul import Matmul
from membound.cost.profile import FACTORS, Profile
from membound.errors import RecordError
from membound.spec import catalogue

H100 = catalogue.machine("h100-sxm").gpu
HEADS: Shape = ("bfloat16", (4, 32, 512, 128))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the user's own profiles."""
    monkeypatch.setenv("MEMBOUND_PROFILES", str(tmp_path))
    return tmp_path


def calibrated(**changes: object) -> Profile:
    """The shipped profile of the H100 with some fields changed."""
    return dataclasses.replace(profile.shipped(H100), **changes)  # type: ignore[arg-type]


def test_text_and_back_is_the_same_profile() -> None:
    whole = calibrated(source="ours: a 'card', 80 GB", factors={"matmul": 0.97, "pcie": 1.1}, copy_latency=2.5e-6, unmeasured=("scan", "sort"))
    text = profile_text.text(whole)
    again = profile.read(text, "it")
    assert profile_text.text(again) == text
    for name in ("gpu", "source", "families", "clock", "sms", "unmeasured"):
        assert getattr(again, name) == getattr(whole, name)
    assert (again.launch, again.factors) == (pytest.approx(whole.launch), pytest.approx(whole.factors))
    assert again.copy_latency == pytest.approx(whole.copy_latency)


def test_the_users_own_profile_goes_before_the_shipped_one(own: Path) -> None:
    (own / "mine.yaml").write_text(profile_text.text(calibrated(l2_bandwidth=1e12)))
    assert profile.profile_of(H100).l2_bandwidth == 1e12
    assert profile.shipped(H100).l2_bandwidth != 1e12
    assert str(own / "mine.yaml") in profile.profile_of(H100).note()


def test_relatives_borrow_rates_but_no_factors(own: Path) -> None:
    (own / "mine.yaml").write_text(profile_text.text(calibrated(l2_bandwidth=1e12, factors={"matmul": 2.0}, copy_latency=1e-3)))
    borrowed = profile.profile_of(catalogue.machine("gh200").gpu)
    assert (borrowed.l2_bandwidth, borrowed.factor("matmul"), borrowed.copy_latency) == (1e12, 1.0, None)
    assert "for want of its own" in borrowed.note()
    assert str(own / "mine.yaml") in borrowed.note()


def test_what_an_older_profile_lacks_is_taken_from_a_shipped_one_and_named(own: Path) -> None:
    whole = calibrated()
    families, launch = ({k: v for k, v in of.items() if k != gone} for of, gone in ((whole.families, "scan"), (whole.launch, "event")))
    (own / "old.yaml").write_text(profile_text.text(dataclasses.replace(whole, families=families, launch=launch)))
    found = profile.profile_of(H100)
    assert found.rate("scan") == whole.rate("scan")
    assert found.launch["event"] == whole.launch["event"]
    assert found.unmeasured == ("scan", "launch.event")


@pytest.mark.parametrize("text", ["", "schema: 7", "schema: 1\ngpu: x", "- a list", "factors: {gravity: 2}", "a: [", "\0"])
def test_what_is_no_profile_is_one_line_that_names_the_file(own: Path, text: str) -> None:
    good = profile_text.text(calibrated())
    (own / "bad.yaml").write_text(good + text if text.startswith("factors") else text)
    with pytest.raises(RecordError, match=r"bad\.yaml") as refused:
        profile.profile_of(H100)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("law", FACTORS)
def test_a_factor_multiplies_its_law_and_no_other(own: Path, law: str) -> None:
    plain = times()
    (own / "mine.yaml").write_text(profile_text.text(calibrated(factors={law: 1.5})))
    found = {name: seconds / plain[name] for name, seconds in times().items()}
    assert found == pytest.approx({name: 1.5 if name == law else 1.0 for name in FACTORS}, rel=2e-3)


def times() -> dict[str, float]:
    """Seconds of something large by every law that has a factor."""
    machine = catalogue.machine("hgx-h100")
    square = {dtype: priced(Matmul(), "aten.mm.default", [(dtype, (4096, 4096))] * 2, 2 * 4096.0**3) for dtype in ("bfloat16", "float32")}
    flops = 4 * 4 * 32 * 512.0**2 * 128
    return {
        "matmul": square["bfloat16"],
        "matmul_fp32": square["float32"],
        "attention_forward": priced(AttentionForward(), "aten._scaled_dot_product_flash_attention.default", [HEADS] * 3, flops),
        "attention_backward": priced(AttentionBackward(), "aten._scaled_dot_product_flash_attention_backward.default", [HEADS] * 6, 2.5 * flops),
        "pcie": float(pcie.copy_seconds(np.array([1e9]), np.array([True]), machine, 1)[0, 0]),
        "collectives": float(collectives.spent(["all_reduce"], np.array([1e9]), np.array([8.0]), machine)[0, 0]),
    }


def priced(law: Law, op: str, reads: list[Shape], flops: float) -> float:
    """Seconds of one kernel whose result is as large as its last operand."""
    few = np.array([1e6])
    return float(law.price(Kernels((op,), (tuple(reads),), ((reads[-1],),), np.array([flops]), few, few, few), H100).seconds[0])
