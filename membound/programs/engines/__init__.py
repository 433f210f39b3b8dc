"""Engines: who shards, synchronises and steps. One file each behind `Engine`; `prepare` picks by the recipe."""

from __future__ import annotations

from typing import Any

from membound.programs.engines.base import Build, Engine
from membound.programs.world import World
from membound.spec.job import Job


def prepare(job: Job, config: dict[str, Any], build: Build, world: World) -> Engine:
    """The Job's engine on `world.device`, with the model that `build` gives; `config` is the model's configuration."""
    match job.recipe.engine:
        case "none":
            from membound.programs.engines.plain import Plain

            return Plain(job, build, world)
        case "ddp":
            from membound.programs.engines.ddp import Ddp

            return Ddp(job, build, world)
        case "fsdp":
            from membound.programs.engines.fsdp import Fsdp

            return Fsdp(job, build, world)
        case "deepspeed":
            from membound.programs.engines.deepspeed import DeepSpeed

            return DeepSpeed(job, config, build, world)
