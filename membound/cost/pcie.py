"""Copies between host and GPU: over PCIe or C2C, out of or into DIMMs that all GPUs of a node share."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost import ddr
from membound.cost.profile import profile_of
from membound.cost.resources import Spent, spent
from membound.spec.machine import Machine

Floats = npt.NDArray[np.float64]

# Share of the line rate that large pinned copies reach: 54.8 GB/s to the GPU and 55.0 back, of 63.0 over PCIe 5 x16 (our own readings on one H100,
# validation/kernels/h100-sxm.csv, copies of 1 GiB).
_EFFICIENCY: Final = 0.87
# Time of the smallest copy on the copy engine, s: 2.4 to 2.7 us for 4 KiB (same file).
_LATENCY: Final = 2.5e-6
# Pageable memory is first copied into the driver's pinned buffers by one core, B/s: with the link after it 5.7 to 6.6 GB/s to the GPU for batches of
# 4 to 128 MiB that are other ones each time (validation/kernels/h200-by-row.csv), as a step's are; the same one again and again at up to 13 GB/s.
_STAGING: Final = 6.8e9
BUFFERED: Final = 1 << 20
"""Pageable memory that the driver takes into these buffers at once, B; a copy of more holds the host until it is over, asked to or not: behind 20 ms
of work, 1 MiB comes back in 0.2 ms and 4 MiB in 20 (validation/kernels/h200-host-steps.csv, family copy)."""


def copy_seconds(nbytes: Floats, pinned: npt.NDArray[np.bool_], machine: Machine, ranks_on_node: int, locked: float = 0.0) -> Spent:
    """Time of copies of `nbytes` in one direction, [ROWS, n], while all ranks of the node copy as much.

    Args: `pinned` whether the host's end is page-locked, `locked` all that the rank has page-locked, B.
    """
    link = machine.links.pcie
    profile = profile_of(machine.gpu)
    rate = link.bandwidth * _EFFICIENCY / profile.factor("pcie") / min(link.shared_by, ranks_on_node)
    over_link = nbytes / rate
    of_dimms = np.where(pinned, ddr.locked_share(machine.host, ranks_on_node, locked), ddr.share(machine.host, ranks_on_node))
    over_dimms = nbytes / of_dimms
    slower = over_dimms > over_link
    staging = np.where(pinned, 0.0, nbytes / _STAGING)
    latency = np.full_like(over_link, _LATENCY if profile.copy_latency is None else profile.copy_latency)
    zero = np.zeros_like(over_link)
    return spent(
        pcie=np.where(slower, zero, over_link), ddr=np.where(slower, over_dimms, zero), host_compute=staging, fixed=latency
    )  # fmt: skip
