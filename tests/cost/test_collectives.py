"""Collectives: the measured tables, what links and groups change, and where the seconds go."""

from __future__ import annotations

import numpy as np
import pytest

from membound.cost import collectives
from membound.cost.resources import ROW
from membound.spec import catalogue
from membound.spec.machine import Machine

OPS = {
    "c10d.allreduce_.default": "all_reduce",
    "_c10d_functional.all_reduce.default": "all_reduce",
    "_c10d_functional.all_reduce_coalesced_.default": "all_reduce",
    "c10d._allgather_base_.default": "all_gather",
    "c10d.allgather_.default": "all_gather",
    "_c10d_functional.all_gather_into_tensor.default": "all_gather",
    "c10d._reduce_scatter_base_.default": "reduce_scatter",
    "_c10d_functional.reduce_scatter_tensor.default": "reduce_scatter",
    "c10d.alltoall_base_.default": "alltoall",
    "_c10d_functional.all_to_all_single.default": "alltoall",
    "c10d.broadcast_.default": "broadcast",
    "c10d.reduce_.default": "broadcast",
    "c10d.send.default": "send",
}
BOARDS = [name for name in catalogue.machines() if catalogue.machine(name).gpus > 1]
SIZES = np.array([1e3, 1e5, 1e7, 1e9])


def seconds(op: str, nbytes: float, ranks: int, machine: Machine) -> float:
    return float(collectives.spent([op], np.array([nbytes]), np.array([ranks]), machine)[0, 0])


def linked(machine: Machine, **links: float) -> Machine:
    return machine.model_copy(update={"links": machine.links.model_copy(update=links)})


@pytest.mark.parametrize(("op", "kind"), OPS.items())
def test_names_as_the_trace_has_them(op: str, kind: str) -> None:
    assert collectives.kind_of(op) == kind


@pytest.mark.parametrize("board", ["a100", "h100", "h200", "b200", "l40s"])
@pytest.mark.parametrize("kind", collectives.KINDS)
def test_a_left_out_size_is_read_off_its_neighbours(board: str, kind: str) -> None:
    table = collectives.table(board, kind)
    assert not np.isnan(table.values).any()
    errors = np.abs(np.expm1(table.without_each((1,)) - table.values)[:, 1:-1])
    assert np.median(errors) < 0.10


def test_a_measured_all_gather_comes_back() -> None:
    """268,435,456 half-precision elements among eight H100: 1.40 ms."""
    assert seconds("c10d._allgather_base_.default", 2 * 268_435_456, 8, catalogue.machine("hgx-h100")) == pytest.approx(1.40e-3, rel=0.01)


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("op", OPS)
def test_parts_add_up_and_more_bytes_take_longer(op: str, name: str) -> None:
    machine = catalogue.machine(name)
    found = collectives.spent([op] * len(SIZES), SIZES, np.full(len(SIZES), machine.gpus), machine)
    np.testing.assert_allclose(found[0], found[1:].sum(axis=0))
    assert (found >= 0).all()
    assert (np.diff(found[0]) > 0).all()


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("op", OPS)
def test_faster_links_are_never_slower(op: str, name: str) -> None:
    machine = catalogue.machine(name)
    pcie = machine.links.pcie.model_copy(update={"bandwidth": 2 * machine.links.pcie.bandwidth})
    update = {"pcie": pcie, "nvlink": None if machine.links.nvlink is None else 2 * machine.links.nvlink}
    faster = machine.model_copy(update={"links": machine.links.model_copy(update=update)})
    for nbytes in SIZES:
        assert seconds(op, nbytes, machine.gpus, faster) <= seconds(op, nbytes, machine.gpus, machine)


def test_seconds_lie_on_the_links_that_carry_the_bytes() -> None:
    def part(machine: Machine, ranks: int, name: str) -> float:
        found = collectives.spent(["c10d.allreduce_.default"], np.array([1e9]), np.array([ranks]), machine)
        return float(found[ROW[name], 0] / found[0, 0])

    assert part(catalogue.machine("hgx-h100"), 8, "nvlink") > 0.95
    assert part(catalogue.machine("rtx-4090-x2"), 2, "pcie") > 0.95
    slow = linked(catalogue.machine("hgx-h100"), network=10e9)
    assert part(slow, 16, "network") > 0.95


def test_a_network_that_is_slower_than_nvlink_sets_the_pace_between_nodes() -> None:
    """Eight ports of 50 GB/s a node: 1 GB of gradients goes through them in two times half of it over eight."""
    machine = linked(catalogue.machine("hgx-h100"), network=5e9)
    expected = 2 * 1e9 / 2 / 8 / (5e9 * 0.92)
    assert seconds("c10d.allreduce_.default", 1e9, 16, machine) == pytest.approx(expected, rel=0.02)
    assert seconds("c10d.allreduce_.default", 1e9, 16, machine) > 5 * seconds("c10d.allreduce_.default", 1e9, 8, machine)


def test_a_group_of_one_moves_nothing_over_links() -> None:
    machine = catalogue.machine("hgx-h100")
    assert seconds("c10d.allreduce_.default", 1e9, 1, machine) == 0
    found = collectives.spent(["c10d._allgather_base_.default"], np.array([1e9]), np.array([1]), machine)
    assert found[0, 0] == found[ROW["hbm"], 0] > 0


def test_all_reduce_is_at_most_a_reduce_scatter_and_an_all_gather_and_more_than_either() -> None:
    machine = catalogue.machine("hgx-a100-80gb")
    both = [seconds(op, 1e9, 8, machine) for op in ("c10d._reduce_scatter_base_.default", "c10d._allgather_base_.default")]
    assert max(both) < seconds("c10d.allreduce_.default", 1e9, 8, machine) < 1.1 * sum(both)


def test_sizes_beyond_the_table_move_at_its_last_rate() -> None:
    machine = catalogue.machine("hgx-h200")
    one, ten = (seconds("c10d.allreduce_.default", nbytes, 8, machine) for nbytes in (1e9, 1e10))
    assert ten / one == pytest.approx(10, rel=0.03)


def test_rings_pass_on_all_but_ones_own_share() -> None:
    ops = ["c10d.allreduce_.default", "c10d._allgather_base_.default", "c10d._reduce_scatter_base_.default", "c10d.alltoall_base_.default"]
    for ranks in (1, 2, 8):
        found = collectives.sent(ops, np.full(4, 8e9), np.full(4, ranks))
        once = 8e9 * (ranks - 1) / ranks
        assert found.tolist() == pytest.approx([2 * once, once, once, once])
