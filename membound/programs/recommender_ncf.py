"""Neural matrix factorisation (He et al. 2017), in the sizes of NVIDIA/DeepLearningExamples PyTorch/Recommendation/NCF."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from membound.programs.output import Output


class NeuMf(nn.Module):
    """A product of two embeddings beside a perceptron over two others; whether the user took the item is the question."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        users, items, factors, widths = config["users"], config["items"], config["factors"], config["mlp"]
        self.mf_user_embed = nn.Embedding(users, factors)
        self.mf_item_embed = nn.Embedding(items, factors)
        self.mlp_user_embed = nn.Embedding(users, widths[0] // 2)
        self.mlp_item_embed = nn.Embedding(items, widths[0] // 2)
        self.mlp = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.final = nn.Linear(widths[-1] + factors, 1)
        self._dropout = float(config["dropout"])
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.01)

    def forward(self, users: torch.Tensor, items: torch.Tensor, labels: torch.Tensor) -> Output:
        """Loss of pairs [B] and whether they are real [B]."""
        product = self.mf_user_embed(users) * self.mf_item_embed(items)
        x = torch.cat((self.mlp_user_embed(users), self.mlp_item_embed(items)), dim=1)
        for layer in self.mlp:
            x = F.dropout(F.relu(layer(x)), self._dropout, self.training)
        logits = self.final(torch.cat((product, x), dim=1)).squeeze(1)
        return Output(F.binary_cross_entropy_with_logits(logits, labels))
