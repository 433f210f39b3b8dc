"""Local drives: sequential reads and writes, shared by the ranks of a node."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.resources import Spent, spent
from membound.errors import InputError
from membound.spec.machine import Machine

Floats = npt.NDArray[np.float64]

# Share of the drives' sequential rates that DeepSpeed's asynchronous I/O reaches with large blocks (Rajbhandari et al. 2021, ZeRO-Infinity,
# section 6.3: "near peak"); an assumption between that and a file system's overhead.
_EFFICIENCY: Final = 0.85


def file_seconds(nbytes: Floats, writes: npt.NDArray[np.bool_], machine: Machine, ranks_on_node: int) -> Spent:
    """Time to read or write `nbytes` on the node's drives, [ROWS, n], while all ranks do the same. Raises `InputError` where there are none."""
    drives = machine.host.nvme
    if drives is None:
        raise InputError("machine.host.nvme", None, f"{machine.name} has no drives to offload to: set machine.host.nvme, or offload to cpu")
    rate = np.where(writes, drives.write, drives.read) * drives.count * _EFFICIENCY / max(ranks_on_node, 1)
    return spent(nvme=nbytes / rate)
