"""Collectives: measured times by size and group where a board was measured, and alpha-beta of its links for all else.

Within a node the measured table of the nearest board gives a time; its smallest size is latency (alpha), the rest is bytes over links (beta) and
scales with their bandwidth. Between nodes each GPU has its own network port, and the rings run through all of them at once.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from membound.cost import calibration
from membound.cost.law import Array
from membound.cost.neighbours import Table
from membound.cost.profile import profile_of
from membound.cost.resources import Spent
from membound.cost.resources import spent as split
from membound.spec.machine import Machine

KINDS: Final = ("all_reduce", "all_gather", "reduce_scatter", "alltoall")
RANKS: Final = (2, 4, 8)
# Bandwidth per direction of the measured boards' links, B/s: NVLink 3, 4 and 5 (NVIDIA data sheets), PCIe 4.0 x16 for the L40S.
_LINK: Final = {"a100": 300e9, "h100": 450e9, "h200": 450e9, "b200": 900e9, "l40s": 31.5e9}
# Share of a network port's line rate that NCCL moves: all-reduce over 400 Gbit/s ports comes to 360 to 370 of 400 GB/s a node
# in published nccl-tests.
_NETWORK: Final = 0.92
# Of an all-reduce of two, what a broadcast takes: 0.75 to 0.90 from 4 MiB to 1 GiB on two H100, NCCL 2.28 (validation/kernels/h100-sxm.csv).
_BROADCAST_OF_TWO: Final = 0.82
# s for each hop between nodes: NCCL's own model, src/graph/tuning.cc, hwLat of NET for trees with protocol LL128.
_HOP: Final = 8.5e-6


def spent(ops: list[str], nbytes: Array, ranks: Array, machine: Machine) -> Spent:
    """Seconds of collectives alone on their links, split over fixed, nvlink, pcie, network and hbm; [ROWS, n].

    Args: `ops` names as the Trace has them, `nbytes` of the larger of input and output of a rank (as NCCL counts), `ranks` sizes of the groups, taken
    to fill nodes one after the other.
    """
    count = np.maximum(np.asarray(ranks, np.float64), 1.0)
    size = np.maximum(np.asarray(nbytes, np.float64), 1.0)
    kinds = np.array([kind_of(op) for op in ops], np.str_)
    local = np.minimum(count, machine.gpus)
    nodes = np.ceil(count / machine.gpus)
    # Calibrated within a node: what goes between nodes keeps its price.
    factor = profile_of(machine.gpu).factor("collectives")
    fixed, inside = (factor * each for each in _within(kinds, size, local, machine))
    hops, outside = _between(kinds, size, count, local, nodes, machine)
    # Rings pass through nodes and ports in one pipeline: the slower of the two sets the pace.
    by_network = outside > inside
    nothing = np.zeros(len(size))
    ring = np.where(by_network, 0.0, inside)
    over_pcie = machine.links.nvlink is None
    alone = np.where((count == 1) & np.isin(kinds, ["all_gather", "reduce_scatter", "alltoall"]), 2 * size / machine.gpu.hbm.bandwidth, 0.0)
    return split(
        fixed=fixed + hops,
        nvlink=nothing if over_pcie else ring,
        pcie=ring if over_pcie else nothing,
        network=np.where(by_network, outside, 0.0),
        hbm=alone,
    )


def sent(ops: list[str], nbytes: Array, ranks: Array) -> Array:
    """Bytes that each rank sends, in the mean over the group: what NCCL's rings pass on (nccl-tests, doc/PERFORMANCE.md, "bus bandwidth"); [n].

    Args as of `spent`. Two H200 sent 20.3 GB in a step whose all-reduces and all-gathers of two come to 20.2 by this, 12.5 where FSDP2's come to 12.9
    (NVML's GPM; validation/h200, 2x-llama-7b-zero1-4x512 and 2x-llama-3.2-3b-fsdp-4x1024).
    """
    count = np.maximum(np.asarray(ranks, np.float64), 1.0)
    kinds = np.array([kind_of(op) for op in ops], np.str_)
    once = (count - 1) / count
    share = np.select([kinds == "all_reduce", kinds == "send"], [2 * once, np.where(count > 1, 1.0, 0.0)], once)
    return np.asarray(share * np.asarray(nbytes, np.float64), np.float64)


@cache
def kind_of(op: str) -> str:
    """Which collective an operator is: 'c10d._allgather_base_.default' is an all_gather."""
    name = op.split(".")[1].replace("_", "") if "." in op else op.replace("_", "")
    for kind, marks in _MARKS.items():
        if any(mark in name for mark in marks):
            return kind
    return "send"


_MARKS: Final = {
    "all_reduce": ("allreduce", "barrier"),
    "all_gather": ("allgather",),
    "reduce_scatter": ("reducescatter",),
    "alltoall": ("alltoall",),
    "broadcast": ("broadcast", "reduce"),
}


def _within(kinds: np.ndarray, size: Array, ranks: Array, machine: Machine) -> tuple[Array, Array]:
    """Latency, and s on the links within a node."""
    board = board_of(machine)
    links = machine.links
    bandwidth = links.pcie.bandwidth if links.nvlink is None else links.nvlink
    slower = _LINK[board] / bandwidth
    fixed, moving = np.zeros(len(size)), np.zeros(len(size))
    for kind in np.unique(kinds):
        rows = np.flatnonzero((kinds == kind) & (ranks > 1))
        if not len(rows):
            continue
        total = measured(board, str(kind), size[rows], ranks[rows])
        latency = np.minimum(measured(board, str(kind), np.full(len(rows), 1.0), ranks[rows]), total)
        fixed[rows], moving[rows] = latency, (total - latency) * slower
    return fixed, moving


def _between(kinds: np.ndarray, size: Array, ranks: Array, local: Array, nodes: Array, machine: Machine) -> tuple[Array, Array]:
    """Latency of the hops, and s on each GPU's network port."""
    if machine.links.network is None or not (nodes > 1).any():
        return np.zeros(len(size)), np.zeros(len(size))
    through = size * (nodes - 1) / nodes / local  # B through each port, once around
    times = np.select([kinds == "all_reduce", kinds == "broadcast"], [2 * through, size / local], through)
    times = np.where(kinds == "alltoall", size * (1 - local / ranks), times)
    times = np.where(kinds == "send", size, times)
    hops = np.ceil(np.log2(np.maximum(nodes, 1.0))) * np.where(kinds == "all_reduce", 2, 1)
    many = nodes > 1
    return np.where(many, hops * _HOP, 0.0), np.where(many, times / (machine.links.network * _NETWORK), 0.0)


def board_of(machine: Machine) -> str:
    """The measured board that stands for the machine's links: PCIe cards for those without NVLink, else that of its GPU, or the H100's."""
    if machine.links.nvlink is None:
        return "l40s"
    stands = calibration.basis(machine.gpu).gpu
    return "h100" if stands == "l40s" else stands


def measured(board: str, kind: str, nbytes: Array, ranks: Array) -> Array:
    """Seconds on the measured `board`; sizes beyond the table move at its largest size's rate, groups beyond it as rings of more hops."""
    if kind in ("broadcast", "send"):
        return _one_to_all(board, nbytes, np.full(len(ranks), 2.0) if kind == "send" else ranks)
    times = table(board, kind)
    largest = times.axes[1][-1]
    inside = np.exp(times.at(ranks, np.minimum(nbytes, largest)))
    beyond = np.maximum(ranks / RANKS[-1], 1.0)
    share = (1 - 1 / np.maximum(ranks, 2)) / (1 - 1 / np.clip(ranks, 2, RANKS[-1]))
    seconds: Array = inside * np.maximum(nbytes / largest, 1.0) * share * np.where(nbytes < largest / 64, beyond**0.5, 1.0)
    return seconds


def _one_to_all(board: str, nbytes: Array, ranks: Array) -> Array:
    """A broadcast sends all bytes over each link where an all-gather sends (n - 1) / n of them; between two it takes a share of an all-reduce, that
    sends all of them both ways. A send is a broadcast to one."""
    short, total = (measured(board, "all_gather", each, ranks) for each in (np.ones(len(nbytes)), nbytes))
    gathered = short + (total - short) * ranks / (ranks - 1)
    return np.where(ranks == 2, _BROADCAST_OF_TWO * measured(board, "all_reduce", nbytes, ranks), gathered)


def moved_to(board: str, other: str, kind: str) -> Array:
    """ln(s) at every point of `board`'s table, as `other`'s measurements and the bandwidth of `board`'s links have it."""
    ranks, nbytes = (each.ravel() for each in np.meshgrid(*table(board, kind).axes, indexing="ij"))
    total, latency = (measured(other, kind, size, ranks) for size in (nbytes, np.ones(len(nbytes))))
    moved = latency + np.maximum(total - latency, 0) * _LINK[other] / _LINK[board]
    logarithms: Array = np.log(moved).reshape(table(board, kind).values.shape)
    return logarithms


@cache
def table(board: str, kind: str) -> Table:
    """ln(s) over ranks and bytes."""
    data = calibration.archive("nccl")
    seconds = calibration.decode(np.asarray(data[board], np.int16)[KINDS.index(kind)])
    return Table((np.array(RANKS, np.float64), np.asarray(data["nbytes"], np.float64)), np.log(seconds))
