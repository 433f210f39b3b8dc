"""What collectives take from kernels beside them: SMs from arithmetic, bandwidth from HBM, and nothing from a rank that is alone."""

from __future__ import annotations

import numpy as np
import pytest

from membound.cost.contention import channels, slower
from membound.cost.law import Array
from membound.spec import catalogue
from membound.spec.machine import Machine

HGX = catalogue.machine("hgx-h100")


def one(value: float) -> Array:
    return np.array([value])


@pytest.mark.parametrize(("ranks", "expected"), [(1, 0), (2, 24), (8, 24), (16, 16)])
def test_channels_are_those_of_nccl_s_logs(ranks: float, expected: float) -> None:
    assert channels(one(ranks), HGX)[0] == expected


def test_slow_networks_and_pcie_take_few() -> None:
    def of(machine: Machine, ranks: float) -> float:
        return float(channels(one(ranks), machine)[0])

    network = HGX.model_copy(update={"links": HGX.links.model_copy(update={"network": 6.25e9})})
    assert of(network, 16) == 8
    assert of(catalogue.machine("rtx-4090-x2"), 2) == 2


def test_arithmetic_runs_on_the_sms_that_are_left() -> None:
    assert slower(one(1), one(0), one(24), one(1e12), HGX.gpu)[0] == pytest.approx(132 / 108 - 1)


def test_hbm_bound_kernels_get_the_bandwidth_that_is_left() -> None:
    half = HGX.gpu.hbm.bandwidth / 2
    assert slower(one(0), one(1), one(24), one(half), HGX.gpu)[0] == pytest.approx(1.0)


def test_nothing_beside_them_slows_no_kernel() -> None:
    assert slower(one(0.6), one(0.4), one(0), one(0), HGX.gpu)[0] == 0


def test_no_gpu_is_starved_altogether() -> None:
    for name in catalogue.machines():
        gpu = catalogue.machine(name).gpu
        assert np.isfinite(slower(one(0.5), one(0.5), one(1e6), one(1e15), gpu)).all()
