"""The recurrent Program: GNMT (Wu et al. 2016) as NVIDIA's and MLPerf's recipes train it, rows and targets of fixed lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from membound.programs import models, synthetic
from membound.programs.program import Batch, Batches, Program
from membound.programs.recurrent_gnmt import Gnmt
from membound.programs.world import World


@final
@dataclass(frozen=True)
class Recurrent(Program):
    """Sentences of `data.seq_len` tokens and translations of `data.target_len`, or as many. Recipes sort by length: rows hardly need padding."""

    def model(self, world: World) -> nn.Module:
        return Gnmt(self.config).to(models.weight_dtype(self.job.recipe)).train()

    def batches(self, world: World) -> Batches:
        return lambda index: self._batch(synthetic.generator(index, world.rank))

    def planned(self) -> Batch:
        rows, tokens = self.job.recipe.micro_batch, self.job.data.cap
        return {"source": torch.ones((tokens, rows), dtype=torch.int64), "target": torch.ones((self._target + 1, rows), dtype=torch.int64)}

    @property
    def _target(self) -> int:
        return self.job.data.target_len or self.job.data.cap

    def _batch(self, draw: torch.Generator) -> Batch:
        rows, tokens = self.job.recipe.micro_batch, self.job.data.cap
        whole = synthetic.chains(rows, tokens + self._target + 1, int(self.config["vocab_size"]), draw).T
        return {"source": whole[:tokens].contiguous(), "target": whole[tokens:].contiguous()}
