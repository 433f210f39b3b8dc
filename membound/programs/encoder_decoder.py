"""The encoder-decoder Program: T5, by Transformers' model, on rows and targets of fixed lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast, final

import torch
from torch import nn

from membound.programs import models, synthetic
from membound.programs.program import Batch, Batches, Program
from membound.programs.world import World

# Raffel et al. 2020, section 3.3.4: 15 % of the tokens are dropped, in spans of three.
_DROPPED: Final = 0.15
_SPAN: Final = 3


@final
@dataclass(frozen=True)
class EncoderDecoder(Program):
    """`data.seq_len` tokens in, `data.target_len` out; left out, as many as T5's span corruption makes of them."""

    def model(self, world: World) -> nn.Module:
        """Transformers' T5ForConditionalGeneration."""
        from transformers import AutoModelForSeq2SeqLM

        built = models.from_config(AutoModelForSeq2SeqLM, self.job, models.transformers_config(self.job, self.config), world)
        return cast(nn.Module, built.train())

    def batches(self, world: World) -> Batches:
        return lambda index: self._batch(synthetic.generator(index, world.rank))

    def planned(self) -> Batch:
        rows, tokens = self.job.recipe.micro_batch, self.job.data.cap
        return {"input_ids": torch.ones((rows, tokens), dtype=torch.int64), "labels": torch.ones((rows, self._target), dtype=torch.int64)}

    @property
    def _target(self) -> int:
        return self.job.data.target_len or span_corruption(self.job.data.cap)

    def _batch(self, draw: torch.Generator) -> Batch:
        rows, tokens = self.job.recipe.micro_batch, self.job.data.cap
        whole = synthetic.chains(rows, tokens + self._target, int(self.config["vocab_size"]), draw)
        return {"input_ids": whole[:, :tokens].contiguous(), "labels": whole[:, tokens:].contiguous()}


def span_corruption(tokens: int) -> int:
    """Tokens of the target where corrupted rows have `tokens`, end marks included.

    Of n tokens of text 15 % are dropped in spans of three: the input keeps the rest and one mark for each span, the target has the dropped
    ones and one mark for each span; both have an end mark. n is the largest that fits. 512 gives 114, as the paper's code has it.
    """

    def split(text: int) -> tuple[int, int]:
        dropped = round(text * _DROPPED)
        spans = round(dropped / _SPAN)
        return text - dropped + spans + 1, dropped + spans + 1

    text = tokens
    while split(text + 1)[0] <= tokens:
        text += 1
    return split(text)[1]
