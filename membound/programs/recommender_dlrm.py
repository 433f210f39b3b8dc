"""DLRM (Naumov et al. 2019): a perceptron over numbers, tables over categories, all pairs of their outputs, and a perceptron on top.

With several ranks the perceptrons are replicated and the tables are spread over the ranks, as facebookresearch/dlrm and NVIDIA's recipe do.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from membound.programs.output import Output
from membound.programs.recommender_tables import Exchange, Tables, placement
from membound.programs.world import World


class Dlrm(nn.Module):
    """`numbers` dense features, and one category for each of `tables`."""

    def __init__(self, config: dict[str, Any], world: World, rate: float, dtype: torch.dtype) -> None:
        super().__init__()
        width, rows = config["embedding"], config["tables"]
        self._held, self._rank = placement(rows, world.size), world.rank
        self.bottom = _perceptron([config["numbers"], *config["bottom"]], last=True)
        pairs = (len(rows) + 1) * len(rows) // 2
        self.top = _perceptron([width + pairs, *config["top"]], last=False)
        own = [rows[table] for table in self._held[world.rank]]
        # Made where they stay: no host need hold them. Each rank's loss is a mean over its own rows.
        self.tables = Tables(own, width, rate / world.size, world.device, dtype, values=world.weights == "random")
        # DistributedDataParallel looks for this name: these parameters are nobody else's.
        self._ddp_params_and_buffers_to_ignore = [f"tables.{name}" for name, _ in self.tables.named_parameters()]
        # Where sharding engines leave a parameter's whole size: here the first table's stands for the other ranks' tables too.
        vars(self.tables.weights[0])["ds_numel"] = (sum(rows) - sum(own[1:])) * width

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor, labels: torch.Tensor) -> Output:
        """Loss of samples' numbers [B, numbers] and labels [B]; `categories` [own tables, ranks x B] are those of all ranks' samples."""
        dense = self.bottom(numbers)
        sparse = self.tables(categories)
        if torch.is_autocast_enabled(sparse.device.type):
            sparse = sparse.to(torch.get_autocast_dtype(sparse.device.type))
        if len(self._held) > 1:
            sparse = Exchange.apply(sparse, [len(held) for held in self._held], self._rank)  # type: ignore[no-untyped-call]
        features = torch.cat((dense[:, None].to(sparse.dtype), sparse), dim=1)
        products = torch.bmm(features, features.transpose(1, 2))
        count = products.shape[1]
        first, second = torch.tril_indices(count, count, offset=-1, device=products.device)
        logits = self.top(torch.cat((dense, products[:, first, second]), dim=1)).squeeze(1)
        return Output(F.binary_cross_entropy_with_logits(logits, labels))


def _perceptron(widths: list[int], last: bool) -> nn.Sequential:
    """Linear layers with ReLU between, and after the last if so asked."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*(layers if last else layers[:-1]))
