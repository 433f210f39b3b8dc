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

# Share of the line rate that large pinned copies reach: 55.3 of 63.0 GB/s over PCIe 5 x16 on an H100 (NVIDIA nvbandwidth, README's sample run,
# host_to_device_memcpy_ce 55.6 GB/s).
_EFFICIENCY: Final = 0.88
# Time of the smallest copy on the copy engine, s: as small cudaMemcpyAsync calls show on timelines (2 to 3 us on Hopper); measured by
# `membound calibrate` as well.
_LATENCY: Final = 2.5e-6
# Pageable memory is first copied into the driver's pinned buffers by one core: B/s; some 6 to 12 GB/s on servers (NVIDIA, "How to Optimize
# Data Transfers in CUDA C/C++", shows half to a third of the pinned rate of its time).
_STAGING: Final = 9e9


def copy_seconds(nbytes: Floats, pinned: npt.NDArray[np.bool_], machine: Machine, ranks_on_node: int) -> Spent:
    """Time of copies of `nbytes` in one direction, [ROWS, n], while all ranks of the node copy as much.

    `pinned`: whether the host's end is page-locked.
    """
    link = machine.links.pcie
    profile = profile_of(machine.gpu)
    rate = link.bandwidth * _EFFICIENCY / profile.factor("pcie") / min(link.shared_by, ranks_on_node)
    over_link = nbytes / rate
    over_dimms = nbytes / ddr.share(machine.host, ranks_on_node)
    slower = over_dimms > over_link
    staging = np.where(pinned, 0.0, nbytes / _STAGING)
    latency = np.full_like(over_link, _LATENCY if profile.copy_latency is None else profile.copy_latency)
    zero = np.zeros_like(over_link)
    return spent(
        pcie=np.where(slower, zero, over_link), ddr=np.where(slower, over_dimms, zero), host_compute=staging, fixed=latency
    )  # fmt: skip
