"""GPU memory outside PyTorch's allocator: what the driver keeps back, the CUDA context with its kernels, and NCCL's buffers.

Our own readings where we have them, published ones with wide bands elsewhere: drivers, toolkits and loaded kernels differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from membound.spec.machine import Architecture, Links

_MIB = 1 << 20


@dataclass(frozen=True)
class Band:
    """Bytes, with the band in which the truth is expected, and where they come from."""

    nominal: int
    low: int
    high: int
    source: str

    def times(self, count: int) -> Band:
        """`count` of these."""
        return Band(self.nominal * count, self.low * count, self.high * count, self.source)


def _mib(nominal: int, low: int, high: int, source: str) -> Band:
    return Band(nominal * _MIB, low * _MIB, high * _MIB, source)


NOTHING: Final = Band(0, 0, 0, "one GPU: no communicator")

_CONTEXTS: Final[dict[Architecture, Band]] = {
    # Some 300 to 400 MB since CUDA 11.7 loads kernels lazily: github.com/pytorch/pytorch issues 107667, 109888.
    "pascal": _mib(350, 200, 550, "300 to 400 MB are usual since CUDA 11.7"),
    # As pascal.
    "volta": _mib(400, 250, 600, "300 to 400 MB are usual since CUDA 11.7"),
    # As pascal.
    "turing": _mib(350, 200, 550, "300 to 400 MB are usual since CUDA 11.7"),
    # Bare context: 256 MiB on an RTX 3090 (github.com/invoke-ai/InvokeAI issue 9413); 500 MB is usual on an A100 (github.com/pytorch/serve 2128).
    "ampere": _mib(480, 300, 700, "256 MiB bare on an RTX 3090, 500 MB usual on an A100"),
    # Between an RTX 3090 and an RTX PRO 6000; an assumption.
    "ada": _mib(450, 280, 700, "between its neighbours' readings"),
    # Our own readings on an H200, PyTorch 2.11, CUDA 13.0 (validation/h200/memory-torch-2.11.jsonl, "outside"): 748 to 767 MiB after three training
    # steps of 25 jobs without process group, 621 MiB bare. Others read 612 to 616 MiB bare: github.com/LMCache/LMCache issue 4019.
    "hopper": _mib(765, 620, 950, "748 to 767 MiB with a training step's kernels, measured on an H200"),
    # 658 MiB with a small arena on an RTX PRO 6000: github.com/local-inference-lab/rtx6kpro issue 42.
    "blackwell": _mib(680, 500, 1000, "658 MiB on an RTX PRO 6000"),
    # No reading found: an assumption.
    "cdna3": _mib(800, 400, 1600, "assumed"),
}

_KEPT_BACK: Final[dict[Architecture, Band]] = {
    # As ampere.
    "pascal": _mib(400, 200, 900, "as on Ampere"),
    # As ampere.
    "volta": _mib(400, 200, 900, "as on Ampere"),
    # As ampere.
    "turing": _mib(400, 200, 900, "as on Ampere"),
    # nvidia-smi's total less the total in PyTorch's out-of-memory message: 24576 MiB - 23.69 GiB, 40960 MiB - 39.49 GiB, 81920 MiB - 79.15 GiB.
    "ampere": _mib(520, 310, 870, "nvidia-smi's total less PyTorch's: 318 to 870 MiB"),
    # 24564 MiB - 23.52 GiB (RTX 4090), in the same way.
    "ada": _mib(480, 350, 700, "nvidia-smi's total less PyTorch's: 480 MiB"),
    # 81559 MiB - 79.19 GiB (H100), 143771 MiB - 139.81 GiB (H200), in the same way.
    "hopper": _mib(540, 440, 720, "nvidia-smi's total less PyTorch's: 470 to 610 MiB"),
    # 95.59 GiB - 94.97 GiB (RTX PRO 6000): github.com/ollama/ollama pull 18201.
    "blackwell": _mib(640, 450, 1000, "nvidia-smi's total less CUDA's: 638 MiB"),
    # No reading found: an assumption.
    "cdna3": _mib(600, 200, 1200, "assumed"),
}

# Our own readings on an H200 (the same file): 558 MiB more with a process group of one rank under DDP and FSDP2, 948 MiB under DeepSpeed.
_ALONE = _mib(558, 400, 1000, "NCCL: 558 MiB for one H200 alone, measured")
# 544 MB for a communicator of 2 of 4 A100 on NVLink after an all-reduce: github.com/NVIDIA/nccl issue 964.
_PAIR = _mib(544, 250, 1000, "NCCL: 544 MB for two A100")
# 688 MB for 3 or 4 of them: the same issue. 8 H100 without all-to-all stay within this and their context: nccl issue 1685.
_NVLINK = _mib(688, 350, 1600, "NCCL: 688 MB for three or four A100")
# "The memory usage is linearly tied to the number of channels": nccl issue 986; PCIe boards use 2 to 4 of NVLink's 16 or more. An estimate.
_PCIE = _mib(150, 60, 500, "NCCL over PCIe: few channels, estimated")
# 1.6 GB in all with one communicator, some 6 GB with three or more: nccl issue 864. Beyond two nodes it grows no more: nccl issue 986.
_NODES = _mib(1100, 400, 2200, "NCCL over several nodes: 1.6 GB with the context")


def cuda_context(architecture: Architecture) -> Band:
    """CUDA context of one training process with the kernels that it has loaded."""
    return _CONTEXTS[architecture]


def kept_back(architecture: Architecture) -> Band:
    """What nvidia-smi counts in a GPU's total and no process can have."""
    return _KEPT_BACK[architecture]


def nccl(links: Links, ranks: int, nodes: int, communicators: int) -> Band:
    """NCCL's buffers on one GPU for `communicators` of up to `ranks` ranks."""
    if communicators < 1:
        return NOTHING
    if ranks < 2:
        return _ALONE
    if nodes > 1:
        return _NODES.times(communicators)
    if links.nvlink is None:
        return _PCIE.times(communicators)
    return (_PAIR if ranks == 2 else _NVLINK).times(communicators)
