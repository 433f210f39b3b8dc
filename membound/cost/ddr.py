"""The host's DIMMs and cores: what copies, the offloaded optimizer and other host work get of them when all ranks of a node work at once."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.resources import Spent, spent
from membound.spec.host import Host
from membound.spec.machine import Machine

Floats = npt.NDArray[np.float64]

# Share of the DIMMs' peak that mixed reads and writes of all cores reach: an assumption, as STREAM shows it on two-socket DDR5 servers (some 75 to
# 85 %; for such runs see Dell InfoHub, "Memory bandwidth for next-gen PowerEdge servers", 2023, and ai-hpc.org, "STREAM benchmark").
_EFFICIENCY: Final = 0.78
# B/s that one core streams with vector instructions when it has the memory to itself: an assumption, STREAM with one thread on such cores.
_CORE: Final = 11e9


def effective(host: Host) -> float:
    """Bandwidth of a node's DIMMs that programs get, B/s."""
    return host.bandwidth * _EFFICIENCY


def share(host: Host, ranks: int) -> float:
    """What each of `ranks` gets while all ask for it, B/s."""
    return effective(host) / max(ranks, 1)


def work_seconds(nbytes: Floats, machine: Machine, ranks_on_node: int) -> Spent:
    """Time of host work that streams `nbytes` through its cores, [ROWS, n], while all ranks of the node do the same."""
    host = machine.host
    cores = max(host.sockets * host.cores_per_socket / max(ranks_on_node, 1), 1.0)
    over_dimms = nbytes / share(host, ranks_on_node)
    over_cores = nbytes / (cores * _CORE)
    # Both at once: cores wait for DIMMs, and DIMMs idle while cores compute.
    slower = over_dimms > over_cores
    zero = np.zeros_like(over_dimms)
    return spent(ddr=np.where(slower, over_dimms, zero), host_compute=np.where(slower, zero, over_cores))
