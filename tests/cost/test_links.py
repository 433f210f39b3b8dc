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


def test_page_locked_memory_has_the_channels_of_one_numa_node() -> None:
    machine = catalogue.machine("hgx-a100-40gb")
    whole = ddr.effective(machine.host)
    assert machine.host.numa_nodes == 8
    work = np.array([1e9])
    two = ddr.work_seconds(work, machine, 2, page_locked=work)
    assert two[0, 0] == pytest.approx(8 * 1e9 / whole)
    assert ddr.work_seconds(work, machine, 2)[0, 0] == pytest.approx(2 * 1e9 / whole)
    # As many ranks as nodes share all of them either way.
    assert ddr.work_seconds(work, machine, 8, page_locked=work)[0, 0] == pytest.approx(ddr.work_seconds(work, machine, 8)[0, 0])


def test_page_locked_memory_beyond_a_node_lies_on_more_of_them() -> None:
    host = catalogue.machine("hgx-a100-40gb").host
    node = host.capacity / host.numa_nodes
    whole = ddr.effective(host)
    assert [whole / ddr.locked_share(host, 1, share * node) for share in (0.5, 1.5, 7.5, 20)] == pytest.approx([8, 4, 1, 1])
    assert ddr.locked_share(host, 1, host.capacity) == pytest.approx(ddr.share(host, 1))


def test_larger_dies_refresh_longer() -> None:
    host = catalogue.machine("hgx-h100").host

    def rate(capacity: float, kind: str = "RDIMM") -> float:
        dimms = host.dimms.model_copy(update={"capacity": capacity * 2.0**30, "kind": kind})
        return ddr.effective(host.model_copy(update={"dimms": dimms}))

    # JESD79-5B: of 3,900 ns a rank is silent for 295 ns with dies of 16 Gbit, for 410 ns with larger ones.
    assert rate(96) / rate(64) == rate(128) / rate(64) == pytest.approx((3900 - 410) / (3900 - 295))
    assert rate(48) == rate(96)
    assert rate(128, "3DS RDIMM") == rate(32) == rate(64)


def test_one_thread_streams_what_one_core_can() -> None:
    machine = catalogue.machine("hgx-h100")
    alone = machine.model_copy(update={"host": machine.host.model_copy(update={"threads_per_rank": 1})})
    work = np.array([1e9])
    slow = ddr.work_seconds(work, alone, 8)
    assert slow[ROW["host_compute"], 0] == slow[0, 0] > 3 * ddr.work_seconds(work, machine, 8)[0, 0]
    assert alone.host.cores_of(8) == 1
    assert machine.host.cores_of(8) == 12


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
