"""Families of models: which training program a configuration belongs to, and what data and recipes that takes. Known without any framework."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from membound.errors import InputError
from membound.spec.job import Job

Name = Literal["causal-lm", "encoder", "encoder-decoder", "recurrent", "vision", "recommender"]
Source = Literal["seq_len", "lengths", "path", "image_size", "samples"]


@dataclass(frozen=True)
class Family:
    """What the models of one training program have in common."""

    name: Name
    sources: tuple[Source, ...]
    """Fields of a Job's `data` that it reads, of which one is given."""
    example: str
    """A `data` line that serves."""
    own: bool
    """Whether its modules are membound's own, not Transformers': trained whole, by plain PyTorch or DDP, with eager kernels."""


_TOKENS: Final[tuple[Source, ...]] = ("seq_len",)
_FAMILIES: Final = (
    Family("causal-lm", ("seq_len", "lengths", "path"), "{seq_len: 512}", own=False),
    Family("encoder", _TOKENS, "{seq_len: 512}", own=False),
    Family("encoder-decoder", _TOKENS, "{seq_len: 512, target_len: 114}", own=False),
    Family("recurrent", _TOKENS, "{seq_len: 50}", own=True),
    Family("vision", ("image_size",), "{image_size: 224}", own=True),
    Family("recommender", ("samples",), "{samples: true}", own=True),
)
FAMILIES: Final[dict[str, Family]] = {family.name: family for family in _FAMILIES}

# The type of a configuration decides. What is not listed here is a causal language model, if Transformers has one for it.
_TYPES: Final[dict[str, Name]] = {
    "bert": "encoder",
    "t5": "encoder-decoder",
    "gnmt": "recurrent",
    "resnet-v1.5": "vision",
    "ssd300": "vision",
    "mask-rcnn": "vision",
    "neumf": "recommender",
    "dlrm": "recommender",
}


def of(config: Mapping[str, Any]) -> Family:
    """The family of a model by its configuration."""
    return FAMILIES[_TYPES.get(str(config.get("model_type")), "causal-lm")]


def check(job: Job, config: Mapping[str, Any]) -> None:
    """Raise `InputError` where the Job's data or recipe is none that the model's family takes."""
    family = of(config)
    _check_data(job, family)
    for field, allowed, cure in _OWN if family.own else _ENCODER if family.name == "encoder" else ():
        value = getattr(job.recipe, field)
        if value not in allowed:
            raise InputError(f"recipe.{field}", value, f"not for {config['model_type']}: {cure}")


def _check_data(job: Job, family: Family) -> None:
    given = job.data.source
    if given not in family.sources:
        cure = f"{job.model} is a {family.name} model: write data: {family.example}"
        raise InputError(f"data.{given}", getattr(job.data, given), cure)
    if job.data.target_len is not None and family.name not in {"encoder-decoder", "recurrent"}:
        raise InputError("data.target_len", job.data.target_len, f"{job.model} has no decoder of its own: leave it out")


# Fields of a recipe, what may be written there, and what to do about anything else.
_Rules = tuple[tuple[str, tuple[str, ...], str], ...]
_OWN: Final[_Rules] = (
    ("method", ("full",), "adapters serve language models: write full"),
    ("engine", ("none", "ddp"), "sharding engines serve language models: write none or ddp"),
    ("recompute", ("none",), "it has no layers to recompute: write none"),
    ("kernels", ("eager",), "compiled and Liger kernels serve language models: write eager"),
    ("attention", ("sdpa",), "it has no attention to choose: leave it out"),
)
_ENCODER: Final[_Rules] = (
    ("method", ("full",), "PEFT has no adapters for its pre-training heads: write full"),
    ("engine", ("none", "ddp", "deepspeed"), "FSDP2 would shard its embeddings apart from the head that shares them: write ddp or deepspeed"),
)
