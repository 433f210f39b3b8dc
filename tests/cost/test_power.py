"""Energy against time: what the measured boards drew, in bursts and held by their limit, and how far a limit slows their cores."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.cost.power import Load, board_power, held
from membound.cost.resources import ROW
from membound.spec import catalogue
from membound.spec.job import Job
from membound.spec.machine import Gpu
from membound.study.calibration import products
from membound.study.predicting import Predictor

KERNELS = Path(__file__).resolve().parents[2] / "validation/kernels"
NOTHING = np.zeros(1)
# Operations, bytes and seconds of kernels in all.
AMOUNTS = st.tuples(st.floats(1e9, 1e15), st.floats(1e6, 1e12), st.floats(1e-4, 2.0), st.floats(0.0, 1.0))


def product(row: dict[str, str]) -> Load:
    """What a measured product does, in all: operands once from HBM."""
    return Load(np.array([float(row["flops"])]), NOTHING, NOTHING, np.array([float(row["bytes"])]), NOTHING, NOTHING, NOTHING)


def measured(name: str, bursts: bool) -> list[dict[str, str]]:
    """Products of normal bf16 numbers, held for seconds or in bursts."""
    with (KERNELS / f"{name}.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["family"] == "power" and row["op"] == "mm" and row["dtype"] == "bfloat16"]
    return [row for row in rows if "zeros" not in row["notes"] and ("in bursts" in row["notes"]) == bursts]


@pytest.mark.parametrize("name", ["h100-sxm", "h200"])
def test_products_held_for_seconds_take_as_long_as_the_limit_makes_them(name: str) -> None:
    gpu = catalogue.machine(name).gpu
    ratios = []
    for row in measured(name, bursts=False):
        if float(row["flops"]) < 1e11:
            continue  # those that HBM bounds are held, but hardly slower
        alone = products.predicted({**row, "family": "matmul", "op": "aten.mm.default"}, gpu)
        assert alone is not None
        speed = held(gpu, np.array([alone]), np.array([alone]), product(row))
        assert speed is not None
        assert speed[0] < 1
        ratios.append(alone / speed[0] / float(row["seconds_warm"]))
    assert len(ratios) >= 2
    assert np.median(np.abs(np.log(ratios))) < 0.1


def test_in_bursts_a_board_draws_what_its_energies_say() -> None:
    gpu = catalogue.machine("h200").gpu
    rows = [row for row in measured("h200", bursts=True) if float(row["flops"]) > 1e11]
    assert len(rows) >= 4
    for row in rows:
        done, seconds = product(row), float(row["seconds_warm"])
        rates = Load(*(getattr(done, field) / seconds for field in Load.__dataclass_fields__))
        assert float(board_power(gpu, rates)[0]) == pytest.approx(float(row["power"]), rel=0.16)
        assert float(row["power"]) > 1.3 * gpu.power.limit


def test_who_was_not_measured_at_full_clock_is_not_held() -> None:
    work = Load(*(np.array([1e12]) for _ in range(7)))
    for name in ("a100-sxm-80gb", "rtx-4090", "mi300x", "b200"):
        assert held(catalogue.machine(name).gpu, np.ones(1), np.ones(1), work) is None


@given(AMOUNTS, st.floats(0.5, 1.0))
def test_a_board_keeps_within_its_limit_and_a_lower_one_is_no_quicker(amounts: tuple[float, float, float, float], share: float) -> None:
    flops, nbytes, seconds, compute = amounts
    gpu = catalogue.machine("h200").gpu
    done = Load(np.array([flops]), NOTHING, NOTHING, np.array([nbytes]), NOTHING, NOTHING, NOTHING)
    found = {limit: speed_of(gpu, limit, compute * seconds, seconds, done) for limit in (gpu.power.limit, share * gpu.power.limit)}
    for limit, speed in found.items():
        assert 0.3 <= speed <= 1
        if 0.3 < speed < 1:
            taken = seconds * (1 - compute + compute / speed)
            rates = Load(*(getattr(done, field) / taken * (speed**1.5 if field == "tensor" else 1) for field in Load.__dataclass_fields__))
            assert float(board_power(gpu, rates)[0]) <= limit * (1 + 1e-6)
    assert found[share * gpu.power.limit] <= found[gpu.power.limit]


def speed_of(gpu: Gpu, limit: float, arithmetic: float, seconds: float, done: Load) -> float:
    """How fast the cores are under `limit` W."""
    lower = gpu.model_copy(update={"power": gpu.power.model_copy(update={"limit": limit})})
    speed = held(lower, np.array([arithmetic]), np.array([seconds]), done)
    assert speed is not None
    return float(speed[0])


def test_what_holds_a_step_back_is_arithmetic(tiny_job: Job) -> None:
    replayer = Predictor().replayer(tiny_job, 1)
    machine = catalogue.machine("h200")
    # Little more than the board draws at rest: the smallest job feels it.
    limit = float(board_power(machine.gpu, Load(*[NOTHING] * 7))[0]) + 1.0
    tight = machine.model_copy(update={"gpu": machine.gpu.model_copy(update={"power": machine.gpu.power.model_copy(update={"limit": limit})})})
    free, slow = replayer.on(machine).prices, replayer.on(tight).prices
    more = slow.table - free.table
    assert np.allclose(slow.table[0], slow.table[1:].sum(axis=0))
    assert (more[0] >= -1e-15).all()
    assert more[0].max() > 0
    assert np.allclose(more[0], more[ROW["compute"]])
