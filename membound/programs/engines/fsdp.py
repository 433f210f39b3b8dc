"""FSDP2: each decoder layer and the root are sharded units; all-gather before use, reduce-scatter of gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from membound.errors import InputError
from membound.programs import adapters, models, optimizers
from membound.programs.engines.base import Build, load_model, with_adapters
from membound.programs.engines.plain import Plain
from membound.programs.world import World
from membound.spec.job import Job


class Fsdp(Plain):
    """As `Plain`, over a sharded model; precision is FSDP's own, not autocast."""

    def __init__(self, job: Job, build: Build, world: World) -> None:
        quantised = job.recipe.method == "qlora"
        with world.watcher.phase("load"):
            self.model = load_model(job, build, world) if quantised else _shapes_alone(job, build)
        with world.watcher.phase("prepare"):
            self.module = shard(self.model, job, world)
            if not quantised:
                materialise(self.module, job, world)
            self.optimizer = optimizers.make(self.module.parameters(), job.recipe)
            self.scaler = torch.amp.GradScaler(world.device.type) if job.recipe.precision == "fp16-mixed" else None
        self._job, self._device = job, world.device

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss: torch.Tensor = self.module(**batch).loss
        return loss

    def trained_state(self) -> dict[str, torch.Tensor]:
        # Gathered one by one, each to the host before the next: what accelerate's FSDP2 state dict does with cpu_offload.
        state = adapters.trained_state(self.model, self._job.recipe)
        return {name: whole(tensor).detach().cpu() for name, tensor in state.items()}


def _shapes_alone(job: Job, build: Build) -> nn.Module:
    with torch.device("meta"):
        return with_adapters(build(), job)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor gathered from all ranks; any other as it is."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard(model: nn.Module, job: Job, world: World) -> nn.Module:
    """Apply `fully_shard` to every decoder layer, then to the whole, in place."""
    options: dict[str, Any] = {"mesh": mesh(job, world), "mp_policy": precision(job)}
    options["offload_policy"] = CPUOffloadPolicy() if job.recipe.offload.params == "cpu" else OffloadPolicy()
    options["reshard_after_forward"] = job.recipe.fsdp != "grad-op"
    for layer in decoder_layers(model):
        fully_shard(layer, **options)
    fully_shard(model, **options)
    return model


def materialise(model: nn.Module, job: Job, world: World) -> None:
    """Give the sharded parameters their memory, each rank its own part: the model was made on the meta device, as torchtune does."""
    model.to_empty(device=torch.device("cpu") if job.recipe.offload.params == "cpu" else world.device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(world.device))
    if world.weights == "random":
        models.initialise(model)


def precision(job: Job) -> MixedPrecisionPolicy:
    """bf16 compute and fp32 reduction over fp32 shards when mixed; as the weights are otherwise."""
    if job.recipe.precision == "bf16-mixed":
        return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    if job.recipe.precision == "fp16-mixed":
        return MixedPrecisionPolicy(param_dtype=torch.float16, reduce_dtype=torch.float32)
    return MixedPrecisionPolicy()


def mesh(job: Job, world: World) -> DeviceMesh:
    """All ranks in one dimension; node by node for hybrid sharding."""
    if job.recipe.fsdp != "hybrid":
        return init_device_mesh(world.device.type, (world.size,))
    if world.size <= world.per_node:
        raise InputError("recipe.fsdp", "hybrid", "shards within a node and replicates across: needs more than one node")
    return init_device_mesh(world.device.type, (world.size // world.per_node, world.per_node), mesh_dim_names=("replicate", "shard"))


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks that Transformers itself names as not to be split."""
    names: set[str] = set()
    for module in model.modules():
        names.update(getattr(module, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]
