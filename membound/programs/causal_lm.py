"""The causal-LM Program: what the Stanford Alpaca recipe and the Hugging Face Trainer do, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast, final

from torch import nn

from membound.programs import data, losses, models
from membound.programs.program import Batch, Batches, Program
from membound.programs.world import World


@final
@dataclass(frozen=True)
class CausalLM(Program):
    """Fine-tuning of a decoder on next-token loss."""

    def model(self, world: World) -> nn.Module:
        from transformers import AutoModelForCausalLM

        built = models.from_config(AutoModelForCausalLM, self.job, models.configuration(self.job, self.config), world)
        losses.apply(built, self.config.get("membound", {}))
        return cast(nn.Module, built.train())

    def batches(self, world: World) -> Batches:
        vocabulary = int(self.config["vocab_size"])
        return data.Rows(self.job.data, self.job.recipe.micro_batch, vocabulary, world.rank, world.size).batch

    def planned(self) -> Batch:
        return data.planned(self.job.data, self.job.recipe.micro_batch)
