"""What our own measured runs were to show: how near predictions must come, and whether they do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from membound.study.validation.own_runs.comparison import TRAFFIC, OwnRun, errors


@dataclass(frozen=True)
class Asked:
    """A relative error that a statistic of a quantity's errors may reach."""

    says: str
    quantity: str
    statistic: Literal["mean", "median", "worst"]
    limit: float


ASKED: Final = (
    Asked("allocated peak within 2 % in the median", "gpu.memory.allocated.peak", "median", 0.02),
    Asked("allocated peak within 5 % at worst", "gpu.memory.allocated.peak", "worst", 0.05),
    Asked("step time within 8 % in the mean", "step.time", "mean", 0.08),
    Asked("HBM bytes within 15 %", TRAFFIC, "mean", 0.15),
    Asked("mean power within 10 %", "gpu.power.mean", "mean", 0.10),
)
"""Set before any job was run; of bytes and power the mean over the runs is meant, and how many lie within is told beside it."""


def verdict(asked: Asked, runs: list[OwnRun]) -> str:
    """Met or missed, the statistic itself, and how many runs lie within the limit; a dash where none has the quantity."""
    found = errors(runs, asked.quantity)
    if found is None:
        return "-"
    reached = abs(getattr(found, asked.statistic))
    within = sum(size <= asked.limit for size in found.sizes)
    return f"{'met' if reached <= asked.limit else '**missed**'}: {reached:.1%} ({within} of {found.count} within)"


TECHNIQUES: Final = (
    "full", "lora", "qlora", "fsdp", "zero-1", "zero-2", "zero-3", "zero-1 with offload", "zero-2 with offload", "zero-3 with offload",
)  # fmt: skip
"""What was to be among the jobs."""

GPM_LIMIT: Final = 0.05
"""How near GPM's bytes must come to those that the GPU's own counters count."""


def not_there(runs: list[OwnRun]) -> list[str]:
    """Techniques that no run shows."""
    return [technique for technique in TECHNIQUES if technique not in {run.technique for run in runs}]


def gpm(runs: list[OwnRun]) -> str:
    """GPM's bytes a step over counted ones, in the mean of the jobs that have both."""
    off = [abs(run.rated / run.counted - 1) for run in runs if run.rated and run.counted]
    if not off:
        return "-"
    mean = sum(off) / len(off)
    return f"{'met' if mean <= GPM_LIMIT else '**missed**'}: {mean:.1%} ({sum(each <= GPM_LIMIT for each in off)} of {len(off)} within)"
