"""What a collective takes from the kernels that run beside it: SMs, and HBM bandwidth.

NCCL runs one block of threads for each of its channels, and such a block has an SM to itself: "NCCL CTAs won't share an SM with compute kernels"
(NVIDIA/nccl#689). A kernel that arithmetic bounds then runs on the SMs that are left; one that HBM bounds, at the bandwidth that is left.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from membound.cost.law import Array
from membound.spec.machine import Gpu, Machine

# Channels of collectives as NCCL's own logs print them: 24 among eight A100s (NVIDIA/nccl-tests#100) and eight H100s (NVIDIA/nccl#1259) with
# NVSwitch; 16 between nodes of eight H100s with a port each (NVIDIA/nccl#1453, #1538), two to a port; 2 is the least, and what PCIe gets (#689).
_NVLINK: Final = 24
_PER_PORT: Final = 2
_NETWORK: Final = 16
_PCIE: Final = 2
# B/s of the slowest port that such nodes have, 100 Gbit/s: nodes with less network than eight of them have fewer. An assumption.
_PORT: Final = 12.5e9
# Share of HBM bandwidth that a kernel keeps at least; an assumption that no catalogue machine's links come near to.
_LEAST: Final = 0.2


def channels(ranks: Array, machine: Machine) -> Array:
    """SMs that a collective of so many ranks takes while it runs."""
    within = float(_PCIE if machine.links.nvlink is None else _NVLINK)
    ports = np.ceil((machine.links.network or 0.0) * machine.gpus / _PORT)
    between = float(np.clip(_PER_PORT * ports, _PCIE, _NETWORK))
    return np.where(ranks > machine.gpus, between, np.where(ranks > 1, within, 0.0))


def slower(compute: Array, memory: Array, sms: Array, hbm: Array, gpu: Gpu) -> Array:
    """By how much longer a kernel takes while a collective runs beside it, 0 for not at all. Arguments broadcast.

    Args: `compute` and `memory` shares of the kernel's time that arithmetic and HBM decide; `sms` that the collective takes; `hbm` B/s that it moves.
    """
    taken = np.minimum(sms, gpu.sms / 2)
    moved = np.minimum(hbm / gpu.hbm.bandwidth, 1 - _LEAST)
    found: Array = compute * taken / (gpu.sms - taken) + memory * moved / (1 - moved)
    return found
