"""The encoder Program: BERT's own pre-training, masked words and next sentence, by Transformers' model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast, final

import torch
from torch import nn

from membound.errors import InputError
from membound.programs import models, synthetic
from membound.programs.data import IGNORE
from membound.programs.program import Batch, Batches, Program
from membound.programs.world import World

# Devlin et al. 2019, section 3.1: 15 % of the tokens are to be predicted.
_HIDDEN: Final = 0.15


@final
@dataclass(frozen=True)
class Encoder(Program):
    """Rows of two sentences, all of `data.seq_len` tokens; 15 % of the tokens are masked, and the second sentence follows the first or not."""

    def model(self, world: World) -> nn.Module:
        """Transformers' BertForPreTraining."""
        from transformers import AutoModelForPreTraining

        positions = int(self.config["max_position_embeddings"])
        if self.job.data.cap > positions:
            raise InputError("data.seq_len", self.job.data.cap, f"{self.job.model} has positions for {positions} tokens")
        built = models.from_config(AutoModelForPreTraining, self.job, models.transformers_config(self.job, self.config), world)
        return cast(nn.Module, built.train())

    def batches(self, world: World) -> Batches:
        return lambda index: self._batch(synthetic.generator(index, world.rank))

    def planned(self) -> Batch:
        rows, tokens = self._shape
        ids = torch.ones((rows, tokens), dtype=torch.int64)
        return {
            "input_ids": ids,
            "token_type_ids": torch.zeros_like(ids),
            "labels": torch.ones_like(ids),
            "next_sentence_label": torch.zeros(rows, dtype=torch.int64),
        }

    @property
    def _shape(self) -> tuple[int, int]:
        return self.job.recipe.micro_batch, self.job.data.cap

    def _batch(self, draw: torch.Generator) -> Batch:
        rows, tokens = self._shape
        half = tokens // 2
        words = int(self.config["vocab_size"]) - 1  # the last stands for a masked word
        ids = synthetic.chains(rows, tokens, words, draw)
        follows = torch.rand(rows, generator=draw) < 0.5
        ids[:, half:] = torch.where(follows[:, None], ids[:, half:], (ids[:, half:] + words // 2) % words)
        masked = torch.rand((rows, tokens), generator=draw) < _HIDDEN
        return {
            "input_ids": torch.where(masked, words, ids),
            "token_type_ids": (torch.arange(tokens) >= half).long().expand(rows, tokens).contiguous(),
            "labels": torch.where(masked, ids, IGNORE),
            "next_sentence_label": (~follows).long(),
        }
