"""GPU memory that a rank of a Trace takes on a Machine outside PyTorch's allocator, and what that leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from membound.cost import context
from membound.cost.context import Band
from membound.spec.machine import Machine
from membound.trace.schema import PLACE, Trace


@dataclass(frozen=True)
class Outside:
    """Bytes on one GPU, as bands."""

    context: Band
    libraries: Band
    kept_back: Band
    managed: int
    """CUDA managed memory (paged optimizers): on the GPU while there is room, and seen by the driver, not by PyTorch."""


def outside(trace: Trace, machine: Machine) -> Outside:
    """What one rank of `trace` takes outside the allocator on `machine`."""
    ranks = trace.header.ranks
    architecture = machine.gpu.architecture
    libraries = context.nccl(machine.links, ranks, math.ceil(ranks / machine.gpus), _communicators(trace))
    return Outside(context.cuda_context(architecture), libraries, context.kept_back(architecture), _managed(trace))


def ranks_on_node(trace: Trace, machine: Machine) -> int:
    """Ranks of the Job that share one node's host."""
    return min(trace.header.ranks, machine.gpus)


def _managed(trace: Trace) -> int:
    storages = trace.storages
    return int(storages["nbytes"][storages["place"] == PLACE["managed"]].sum())


def _communicators(trace: Trace) -> int:
    """Groups of different size that the rank speaks in: each has a communicator of its own. Groups of like size cannot be told apart."""
    if trace.header.ranks < 2:
        # A process group of one rank has a communicator all the same.
        return int(trace.header.job.get("recipe", {}).get("engine", "none") != "none")
    sizes = np.unique(trace.instructions["ranks"][trace.select("collective")])
    return max(int((sizes > 1).sum()), 1)
