"""Engines: who shards, synchronises and steps. One file each behind `Engine`; `prepare` picks by the recipe."""

from __future__ import annotations

from membound.programs.engines.base import Engine
from membound.programs.world import World
from membound.spec.job import Job


def prepare(job: Job, config: dict[str, object], world: World) -> Engine:
    """Build the Job's model and hand it to its engine on `world.device`."""
    match job.recipe.engine:
        case "none":
            from membound.programs.engines.plain import Plain

            return Plain(job, config, world)
        case "ddp":
            from membound.programs.engines.ddp import Ddp

            return Ddp(job, config, world)
        case "fsdp":
            from membound.programs.engines.fsdp import Fsdp

            return Fsdp(job, config, world)
        case "deepspeed":
            from membound.programs.engines.deepspeed import DeepSpeed

            return DeepSpeed(job, config, world)
