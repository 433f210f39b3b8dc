"""Which Program trains a Job, and what builds its model. Each family's code is imported only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from membound.programs.world import World
from membound.spec import families
from membound.spec.job import Job

if TYPE_CHECKING:
    from torch import nn

    from membound.programs.program import Program

Builder = Callable[[Job, dict[str, Any], World], "nn.Module"]


def program(job: Job, config: dict[str, Any]) -> Program:
    """The Program of `job`, whose model has the configuration `config`. Raises `InputError` for data or a recipe that the model does not take."""
    families.check(job, config)
    match families.of(config).name:
        case "causal-lm":
            from membound.programs.causal_lm import CausalLM

            return CausalLM(job, config)
        case "encoder":
            from membound.programs.encoder import Encoder

            return Encoder(job, config)
        case "encoder-decoder":
            from membound.programs.encoder_decoder import EncoderDecoder

            return EncoderDecoder(job, config)
        case "recurrent":
            from membound.programs.recurrent import Recurrent

            return Recurrent(job, config)
        case "vision":
            from membound.programs.vision import Vision

            return Vision(job, config)
        case "recommender":
            from membound.programs.recommender import Recommender

            return Recommender(job, config)


def builder(config: dict[str, Any]) -> Builder:
    """What builds the model of that configuration on the host, in its weight type, with a forward that takes a batch by name and returns `.loss`."""
    match families.of(config).name:
        case "causal-lm":
            from membound.programs.models import build_causal

            return build_causal
        case "encoder":
            from membound.programs.encoder import build

            return build
        case "encoder-decoder":
            from membound.programs.encoder_decoder import build

            return build
        case "recurrent":
            from membound.programs.recurrent import build

            return build
        case "vision":
            from membound.programs.vision import build

            return build
        case "recommender":
            from membound.programs.recommender import build

            return build
