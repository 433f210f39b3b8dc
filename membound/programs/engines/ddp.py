"""DistributedDataParallel: weights and optimizer replicated, gradients all-reduced in buckets during backward."""

from __future__ import annotations

import torch
from torch import nn

from membound.programs.engines.plain import Plain
from membound.programs.world import World


class Ddp(Plain):
    """As `Plain`, with gradients averaged over all ranks on the last micro-step."""

    def wrap(self, model: nn.Module, world: World) -> nn.Module:
        from torch.nn.parallel import DistributedDataParallel

        ids = [world.device.index or 0] if world.device.type == "cuda" else None
        self._ddp = DistributedDataParallel(model, device_ids=ids, find_unused_parameters=False)
        return self._ddp

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self._forward_count += 1
        # DDP decides in forward whether backward will reduce.
        self._ddp.require_backward_grad_sync = self._forward_count % self._job.recipe.accumulation == 0
        return super().forward(batch)

    _forward_count = 0
