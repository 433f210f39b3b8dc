"""The host's DIMMs and cores: what copies, the offloaded optimizer and other host work get of them when all ranks of a node work at once.

Pageable tensors are first touched by all of a rank's threads, each its part, and so lie over all NUMA nodes. Page-locked ones are populated
within the call that allocates them, by the thread that makes it, and so lie on the one NUMA node where that thread runs (Linux's default policy,
docs.kernel.org/admin-guide/mm/numa_memory_policy.html), or on as many as it takes to hold them. A rank's page-locked memory then has that
node's channels alone, however many threads stream it. Ranks are taken to sit on different nodes, as far as there are enough.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.resources import Spent, spent
from membound.spec.host import Dimms, Host
from membound.spec.machine import Machine

Floats = npt.NDArray[np.float64]

# Share of the DIMMs' peak that mixed reads and writes of all cores reach: an assumption, as STREAM shows it on two-socket DDR5 servers (some 75 to
# 85 %; for such runs see Dell InfoHub, "Memory bandwidth for next-gen PowerEdge servers", 2023, and ai-hpc.org, "STREAM benchmark").
_EFFICIENCY: Final = 0.78
# B/s that one core streams with vector instructions when it has the memory to itself: DeepSpeed's CPU Adam with one and two threads takes 18.2 and
# 16.2 GB/s a core, additions and multiplications in place 16 to 23, copies and casts 10 (a store's own read not counted), on the server of two H200s,
# an Emerald Rapids Xeon (validation/h200/host_memory.json).
_CORE: Final = 16e9

# DDR5 refreshes every 3.9 us, and then a rank is silent for 295 ns with dies of 16 Gbit, 410 ns with dies of 24 or 32 Gbit (JEDEC JESD79-5B, tREFI
# and tRFC1 by device density). Servers that measure STREAM have modules of 16 Gbit, so that `_EFFICIENCY` holds their refreshes.
_INTERVAL: Final = 3.9e-6
_REFRESH: Final = {16: 295e-9, 24: 410e-9, 32: 410e-9}
# A registered module of one die a package has at most two ranks of sixteen x4 dies: 64 GiB of 16 Gbit dies, B.
_LARGEST: Final = 64 * 2**30


def effective(host: Host) -> float:
    """Bandwidth of a node's DIMMs that programs get, B/s."""
    return host.bandwidth * _EFFICIENCY * _awake(host.dimms)


def share(host: Host, ranks: int) -> float:
    """What each of `ranks` gets of memory that lies over all NUMA nodes while all ask for it, B/s."""
    return effective(host) / max(ranks, 1)


def locked_share(host: Host, ranks: int, locked: float = 0.0) -> float:
    """What each of `ranks` gets of its page-locked memory, `locked` bytes, while all ask for it, B/s."""
    spanned = max(math.ceil(locked * host.numa_nodes / host.capacity), 1)
    return effective(host) / max(ranks, host.numa_nodes / spanned)


def work_seconds(nbytes: Floats, machine: Machine, ranks_on_node: int, page_locked: Floats | None = None, locked: float = 0.0) -> Spent:
    """Time of host work that streams `nbytes` through its cores, [ROWS, n], while all ranks of the node do the same.

    Args: `page_locked` bytes among them that are page-locked, none unless given; `locked` all that the rank has page-locked, B.
    """
    host = machine.host
    among = np.zeros_like(nbytes) if page_locked is None else page_locked
    over_dimms = np.maximum(nbytes / share(host, ranks_on_node), among / locked_share(host, ranks_on_node, locked))
    over_cores = nbytes / (host.cores_of(ranks_on_node) * _CORE)
    # Both at once: cores wait for DIMMs, and DIMMs idle while cores compute.
    slower = over_dimms > over_cores
    zero = np.zeros_like(over_dimms)
    return spent(ddr=np.where(slower, over_dimms, zero), host_compute=np.where(slower, zero, over_cores))


def _awake(dimms: Dimms) -> float:
    """Time in which a rank of modules answers, over that of modules of 16 Gbit dies."""
    silent = _REFRESH[_die(dimms)]
    return (_INTERVAL - silent) / (_INTERVAL - _REFRESH[16])


def _die(dimms: Dimms) -> int:
    """Gbit of each die of registered modules. Stacked ones (3DS) reach their capacity with more dies of 16 Gbit; those of 24, 48, 96 GiB have dies of
    24. Others count as those that were measured."""
    if dimms.kind != "RDIMM":
        return 16
    if math.log2(dimms.capacity / (3 * 2**30)).is_integer():
        return 24
    return 16 if dimms.capacity <= _LARGEST else 32
