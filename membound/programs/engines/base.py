"""What every engine offers the training loop."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import nn

from membound.programs import adapters, kernels, models
from membound.programs.world import World
from membound.spec.job import Job

Category = Literal["weights", "gradients", "optimizer", "communication"]
Build = Callable[[], nn.Module]
"""Makes a Program's model on the host."""


class Engine(abc.ABC):
    """A model ready to train. `forward`, `backward` once per micro-step, `step` once per optimizer step."""

    model: nn.Module

    @abc.abstractmethod
    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The scalar loss of one micro-batch."""

    @abc.abstractmethod
    def backward(self, loss: torch.Tensor, last: bool) -> None:
        """Accumulate the gradients of `loss`; `last` says that the optimizer steps next."""

    @abc.abstractmethod
    def step(self) -> None:
        """Clip, update the weights, clear the gradients."""

    @abc.abstractmethod
    def tensors(self, category: Category) -> Iterable[torch.Tensor]:
        """The tensors that hold `category` right now."""

    @abc.abstractmethod
    def trained_state(self) -> dict[str, torch.Tensor]:
        """What rank 0 would save: the trained weights, whole, on the host. Called on every rank; empty on the others where the engine says so."""


def on_host(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every tensor of `state` on the host."""
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def load_model(job: Job, build: Build, world: World) -> nn.Module:
    """The model with its adapters and recomputation on `world.device`: built on the host, quantised if asked, moved."""
    model = build()
    if job.recipe.method == "qlora":
        model = adapters.quantise(model, job.recipe, world.device)
    model = model.to(world.device)
    return with_adapters(model, job)


def with_adapters(model: nn.Module, job: Job) -> nn.Module:
    """Adapters, kernels and recomputation, in the order in which PEFT's guides and the Hugging Face Trainer apply them."""
    if job.recipe.trains_adapters:
        model = adapters.add_adapters(model, job)
    kernels.choose(model, job.recipe)
    models.recompute(model, job.recipe)
    return model


def autocast(job: Job, device: torch.device) -> AbstractContextManager[None]:
    """The autocast of mixed precision; nothing otherwise. DeepSpeed and FSDP2 cast by themselves and do not come here."""
    if job.recipe.precision == "bf16-mixed":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    if job.recipe.precision == "fp16-mixed":
        return torch.autocast(device.type, dtype=torch.float16)
    return nullcontext()


def optimizer_states(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Every tensor that `optimizer` keeps between steps."""
    return [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
