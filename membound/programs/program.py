"""What every training program has in common: prepare the engine, then data, forward, backward and optimizer, step by step."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from membound.programs.engines import prepare
from membound.programs.engines.base import Category, Engine
from membound.programs.optimizers import warm_up_cosine
from membound.programs.world import World
from membound.spec.job import Job

Batch = dict[str, torch.Tensor]
Batches = Callable[[int], Batch]
"""Gives micro-batch i on the host."""
_CATEGORIES: tuple[Category, ...] = ("weights", "gradients", "optimizer", "communication")


@dataclass(frozen=True)
class Program(abc.ABC):
    """A Job as PyTorch code. Members say what is trained and what is fed; the loop is the same for all."""

    job: Job
    config: dict[str, Any]
    """The configuration of the model: Hugging Face's, or ours for models that Transformers has not."""

    @abc.abstractmethod
    def model(self, world: World) -> nn.Module:
        """The model on the host, in its weight type, with a forward that takes a batch by name and returns `.loss`.

        Values are random, or empty where `world` says that nobody looks. Raises `InputError` for what the model does not take.
        """

    @abc.abstractmethod
    def batches(self, world: World) -> Batches:
        """An endless supply of micro-batches for this rank, which a model can learn from."""

    @abc.abstractmethod
    def planned(self) -> Batch:
        """The micro-batch that memory is planned for, on the host."""

    def run(self, world: World, steps: int, batches: Batches | None = None) -> Engine:
        """Prepare the engine and train for `steps` optimizer steps. `batches(i)` gives micro-batch i on the host."""
        engine = prepare(self.job, self.config, functools.partial(self.model, world), world)
        world.watcher.watch_model(engine.model)
        self._tag(engine, world)
        batches = batches or self.batches(world)
        scheduler = self._scheduler(engine, steps)
        for step in range(steps):
            self._step(engine, world, step, batches)
            if scheduler is not None:
                scheduler.step()
            world.watcher.step_done(step)
        if world.saves:
            with world.watcher.phase("save"):
                engine.trained_state()
        return engine

    def _step(self, engine: Engine, world: World, step: int, batches: Batches) -> None:
        accumulation = self.job.recipe.accumulation
        for micro in range(accumulation):
            with world.watcher.phase("data", step, micro):
                batch = {k: v.to(world.device, non_blocking=True) for k, v in batches(step * accumulation + micro).items()}
            with world.watcher.phase("forward", step, micro):
                loss = engine.forward(batch)
            with world.watcher.phase("backward", step, micro):
                engine.backward(loss, last=micro == accumulation - 1)
            world.watcher.tag("gradients", engine.tensors("gradients"))
            world.watcher.loss(step, loss)
            del loss, batch
        with world.watcher.phase("optimizer", step, accumulation - 1):
            engine.step()
        self._tag(engine, world)

    def _tag(self, engine: Engine, world: World) -> None:
        for category in _CATEGORIES:
            world.watcher.tag(category, engine.tensors(category))

    def _scheduler(self, engine: Engine, steps: int) -> Any:
        optimizer = vars(engine).get("optimizer")
        return warm_up_cosine(optimizer, steps) if isinstance(optimizer, torch.optim.Optimizer) else None
