"""What becomes of a published reading of memory: a Job whose prediction is compared with it, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from membound.spec.job import Job
from membound.study.validation.outcome import MATCHED, LeftOut
from membound.study.validation.rows import Row

ALLOCATED: Final = "gpu.memory.allocated.peak"
ACTIVE: Final = "gpu.memory.active.peak"
USED: Final = "gpu.memory.used.peak"
HOST: Final = "host.memory.used.peak"

GROUPS: Final[dict[str, str]] = {
    MATCHED: "software matched: Hugging Face code that computes as the installed one does, with the loss of its time where that differs",
    "older-model": "the model's code was rewritten since: the older one held more tensors for longer",
    "experts": "mixture of experts: the installed Transformers computes the experts in another way",
    "fsdp1": "FSDP1, with flat parameters and its own prefetching; predicted with FSDP2",
    "litgpt": "litgpt's own model and training code, predicted with the Hugging Face model of the same shape",
    "qwen": "Qwen's own model code of 2023, predicted with the Hugging Face Qwen2 model of the same shape",
    "torchtune": "torchtune's own model and training code, predicted with the Hugging Face model of the same shape",
    "peft-docs": "readings of nvidia-smi in PEFT's guides, to two digits; older FSDP and DeepSpeed",
    "report": "A memory perspective, Micron (2024): micro-batch and recomputation not stated",
    "offload": "issue reports: settings partly stated, values rounded",
}
"""Groups of compared rows; the exam is `matched`, all others are approximate."""


@dataclass(frozen=True)
class Comparable:
    """A row that a Job can express."""

    row: Row
    job: Job
    machine: str
    """Catalogue name."""
    group: str
    quantity: str
    published: float | None
    """What the source printed, in B for one GPU (for one node where it is host memory); None for a verdict alone."""
    fits: bool | None
    """The verdict that the row gives: it ran, it ran out of GPU memory; None: the row is about the host."""
    unit: str
    """How the printed unit was read, and why."""
    settings: tuple[str, ...] = ()
    """What was set where the source is silent or the installed software differs, each with its reason."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Code of the time: `loss` and `upcast` (see `membound.programs.losses`)."""
    host_fits: bool | None = None
    """The verdict on host memory, where the row gives one."""
    machine_changes: Mapping[str, object] = field(default_factory=dict)
    """Fields of the machine that the source states otherwise, dotted."""


Outcome = Comparable | LeftOut
