"""Which Program trains a Job. Each family's code is imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from membound.spec import families
from membound.spec.job import Job

if TYPE_CHECKING:
    from membound.programs.program import Program


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
