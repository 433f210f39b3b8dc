"""The causal-LM Program: what the Stanford Alpaca recipe and the Hugging Face Trainer do, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from membound.programs import data
from membound.programs.program import Batch, Batches, Program
from membound.programs.world import World


@final
@dataclass(frozen=True)
class CausalLM(Program):
    """Fine-tuning of a decoder on next-token loss."""

    def batches(self, world: World) -> Batches:
        vocabulary = int(self.config["vocab_size"])
        return data.Rows(self.job.data, self.job.recipe.micro_batch, vocabulary, world.rank, world.size).batch

    def planned(self) -> Batch:
        return data.planned(self.job.data, self.job.recipe.micro_batch)
