"""Host memory that a training node uses before it holds any tensor."""

from __future__ import annotations

from membound.cost.context import Band

_GIB = 1 << 30

# Assumption: a server's operating system, its services and monitoring, without page cache.
_SYSTEM = Band(4 * _GIB, 1 * _GIB, 12 * _GIB, "assumed: 4 GiB for the system")
# Assumption: 0.4 GiB for Python with PyTorch and a CUDA context and up to 2.1 GiB once kernels are mapped (github.com/pytorch/pytorch issue
# 113326, RTX 3090), and as much again for Transformers, DeepSpeed, NCCL's proxies and malloc's slack.
_PROCESS = Band(3 * _GIB, 1 * _GIB, 6 * _GIB, "assumed: 3 GiB for each rank's process")


def host_base(ranks: int) -> Band:
    """Operating system and the processes of `ranks` ranks on one node."""
    processes = _PROCESS.times(ranks)
    source = f"{_SYSTEM.source}, {_PROCESS.source.removeprefix('assumed: ')}"
    return Band(_SYSTEM.nominal + processes.nominal, _SYSTEM.low + processes.low, _SYSTEM.high + processes.high, source)
