"""Energy against time: what the measured boards drew, and the time in which they may draw it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from membound.cost.power import Load, board_power, least_seconds
from membound.spec import catalogue
from membound.spec.job import Job
from membound.study.calibration import products
from membound.study.predicting import Predictor

KERNELS = Path(__file__).resolve().parents[2] / "validation/kernels"


def product(row: dict[str, str]) -> Load:
    """What a measured product does, in all: operands once from HBM, if the L2 does not hold them."""
    nothing = np.zeros(1)
    flops, nbytes = np.array([float(row["flops"])]), np.array([float(row["bytes"])])
    return Load(flops, nothing, nothing, nbytes, nothing, nothing, nothing)


@pytest.mark.parametrize("name", ["h100-sxm", "h200"])
def test_products_held_for_seconds_take_as_long_as_their_energy_lets_them(name: str) -> None:
    gpu = catalogue.machine(name).gpu
    with (KERNELS / f"{name}.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["family"] == "power" and row["op"] == "mm" and row["dtype"] == "bfloat16"]
    held = [row for row in rows if "zeros" not in row["notes"] and float(row["power"]) > 0.96 * gpu.power.limit]
    assert len(held) >= 4
    ratios = []
    for row in held:
        least = least_seconds(gpu, product(row))
        assert least is not None
        alone = products.predicted({**row, "family": "matmul", "op": "aten.mm.default"}, gpu)
        assert alone is not None
        ratios.append(max(float(least[0]), alone) / float(row["seconds_warm"]))
    assert np.median(np.abs(np.log(ratios))) < 0.12


def test_who_has_not_been_measured_has_no_such_bound() -> None:
    work = Load(*(np.array([1e12]) for _ in range(7)))
    for name in ("a100-sxm-80gb", "rtx-4090", "mi300x", "b200"):
        assert least_seconds(catalogue.machine(name).gpu, work) is None


def test_no_kernel_of_a_step_draws_more_than_the_limit(tiny_job: Job) -> None:
    replayer = Predictor().replayer(tiny_job, 1)
    for name in ("h100-sxm", "h200"):
        machine = catalogue.machine(name)
        work, prices = replayer.workload(machine.gpu), replayer.on(machine).prices
        seconds = prices.table[0, : work.distinct]
        rates = Load(*(np.asarray(getattr(work.amounts, field)) / seconds for field in Load.__dataclass_fields__))
        assert (board_power(machine.gpu, rates) <= 700.0 * (1 + 1e-9)).all()
        assert np.allclose(prices.table[0], prices.table[1:].sum(axis=0))
