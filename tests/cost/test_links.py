"""Copies, host work and drives: what holds on every machine of the catalogue, and rates that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from membound.cost import ddr, nvme, pcie
from membound.cost.heat import temperatures, thermal_of
from membound.cost.power import Load, board_power, core_clock
from membound.cost.resources import ROW, Spent
from membound.errors import InputError
from membound.spec import catalogue
from membound.spec.machine import Machine

SIZES = np.array([0.0, 4096.0, 1e6, 1e9])
machines = pytest.mark.parametrize("machine", [*map(catalogue.machine, catalogue.machines())], ids=catalogue.machines())


def copies(machine: Machine, ranks: int, pinned: bool = True) -> Spent:
    return pcie.copy_seconds(SIZES, np.full(len(SIZES), pinned), machine, ranks)


def adds_up(found: Spent) -> None:
    np.testing.assert_allclose(found[1:].sum(axis=0), found[0])
    assert (found >= 0).all()


@machines
def test_parts_add_up_and_larger_takes_longer(machine: Machine) -> None:
    for found in (copies(machine, 1), copies(machine, machine.gpus, pinned=False), ddr.work_seconds(SIZES, machine, 1)):
        adds_up(found)
        assert (np.diff(found[0]) > 0).all()


@machines
def test_sharing_a_node_is_never_faster(machine: Machine) -> None:
    for one, all_of_them in (
        (copies(machine, 1), copies(machine, machine.gpus)), (ddr.work_seconds(SIZES, machine, 1), ddr.work_seconds(SIZES, machine, machine.gpus))
    ):  # fmt: skip
        assert (all_of_them[0] >= one[0] * (1 - 1e-12)).all()


@machines
def test_pageable_memory_is_slower_than_pinned(machine: Machine) -> None:
    assert (copies(machine, 1, pinned=False)[0][1:] > copies(machine, 1)[0][1:]).all()


@machines
def test_no_copy_beats_its_link_or_the_dimms(machine: Machine) -> None:
    found = copies(machine, 1)[0][-1]
    assert found > 1e9 / machine.links.pcie.bandwidth
    assert found > 1e9 / machine.host.bandwidth


def test_eight_gpus_of_a_board_share_the_dimms() -> None:
    machine = catalogue.machine("hgx-h100")
    each = ddr.work_seconds(np.array([1e9]), machine, 8)
    assert each[0, 0] == pytest.approx(8 * 1e9 / ddr.effective(machine.host))
    assert each[ROW["ddr"], 0] == each[0, 0]


def test_a_machine_without_drives_refuses_to_offload_to_them() -> None:
    machine = catalogue.machine("rtx-4090")
    bare = machine.model_copy(update={"host": machine.host.model_copy(update={"nvme": None})})
    with pytest.raises(InputError, match=r"machine\.host\.nvme.*offload to cpu"):
        nvme.file_seconds(SIZES, np.zeros(len(SIZES), np.bool_), bare, 1)


def load(**rates: float) -> Load:
    names = ("tensor", "plain", "elements", "read", "written", "cached", "links")
    return Load(**{name: np.array([rates.get(name, 0.0)]) for name in names})


@machines
def test_every_rate_costs_power_and_an_idle_board_stays_far_below_its_limit(machine: Machine) -> None:
    idle = board_power(machine.gpu, load())[0]
    assert machine.gpu.power.idle <= idle < 0.5 * machine.gpu.power.limit
    for name in ("tensor", "plain", "elements", "read", "written", "cached", "links"):
        assert board_power(machine.gpu, load(**{name: 1e12}))[0] > idle


@machines
def test_the_clock_falls_only_beyond_the_limit(machine: Machine) -> None:
    limit = machine.gpu.power.limit
    clock = core_clock(machine.gpu, np.array([0.0, limit, 1.2 * limit, 2 * limit])) / machine.gpu.clock.max
    assert clock[:2].tolist() == [1.0, 1.0]
    assert (np.diff(clock[1:]) < 0).all()


@machines
def test_a_board_settles_where_its_power_is_drawn_for_long(machine: Machine) -> None:
    thermal = thermal_of(machine.gpu)
    power = np.full(20_000, 0.8 * machine.gpu.power.limit)
    for settled in (True, False):
        die, memory = temperatures(machine.gpu, power, 0.02, settled)
        assert (np.diff(die) >= -1e-9).all()
        assert die[-1] == pytest.approx(thermal.inlet + thermal.die * power[0])
        assert memory[-1] == pytest.approx(thermal.inlet + thermal.memory_above + thermal.memory * power[0])


def test_heat_follows_one_time_constant() -> None:
    gpu = catalogue.machine("h100-sxm").gpu
    thermal = thermal_of(gpu)
    die, _ = temperatures(gpu, np.full(round(thermal.time / 0.02), 500.0), 0.02, settled=False)
    assert die[-1] - thermal.inlet == pytest.approx(thermal.die * 500 * (1 - np.exp(-1)), rel=1e-3)
