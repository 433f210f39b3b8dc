"""No engine: PyTorch alone, one process, as the Hugging Face Trainer runs on one GPU."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from membound.programs import adapters, optimizers
from membound.programs.engines.base import Build, Category, Engine, autocast, load_model, on_host, optimizer_states
from membound.programs.world import World
from membound.spec.job import Job


class Plain(Engine):
    """Forward under autocast, loss over the accumulation count, clip, step."""

    def __init__(self, job: Job, build: Build, world: World) -> None:
        with world.watcher.phase("load"):
            self.model = load_model(job, build, world)
        with world.watcher.phase("prepare"):
            self.module = self.wrap(self.model, world)
            self.optimizer = optimizers.make(self.module.parameters(), job.recipe)
            self.scaler = torch.amp.GradScaler(world.device.type) if job.recipe.precision == "fp16-mixed" else None
        self._job, self._device = job, world.device

    def wrap(self, model: nn.Module, world: World) -> nn.Module:
        """The module whose forward is called."""
        return model

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with autocast(self._job, self._device):
            return cast(torch.Tensor, self.module(**batch).loss)

    def backward(self, loss: torch.Tensor, last: bool) -> None:
        loss = loss / self._job.recipe.accumulation if self._job.recipe.accumulation > 1 else loss
        (self.scaler.scale(loss) if self.scaler else loss).backward()

    def step(self) -> None:
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        if self._job.recipe.max_grad_norm:
            torch.nn.utils.clip_grad_norm_([p for p in self.module.parameters() if p.requires_grad], self._job.recipe.max_grad_norm)
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad()

    def trained_state(self) -> dict[str, torch.Tensor]:
        return on_host(adapters.trained_state(self.model, self._job.recipe))

    def tensors(self, category: Category) -> Iterable[torch.Tensor]:
        # One after the other, and only if asked: walking a large model takes milliseconds, which a measured step must not pay.
        match category:
            case "weights":
                yield from self.module.parameters()
                yield from self.module.buffers()
                yield from quantised_states(self.module)
            case "gradients":
                yield from (p.grad for p in self.module.parameters() if p.grad is not None)
            case "optimizer":
                yield from optimizer_states(self.optimizer)
            case "communication":
                return


def quantised_states(module: nn.Module) -> list[torch.Tensor]:
    """The scales and codes that stand beside 4-bit weights; each layer keeps its own, whatever an engine makes of the weight."""
    found: list[torch.Tensor] = []
    for layer in module.modules():
        state = vars(layer).get("quant_state")
        while state is not None:
            found += [t for t in (state.absmax, state.code, state.offset) if isinstance(t, torch.Tensor)]
            state = state.state2
    return found
