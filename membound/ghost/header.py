"""What a Trace's header says of a Job and its model, and what of the Job a capture runs."""

from __future__ import annotations

from typing import Any, cast

import torch

from membound import packages
from membound.programs.world import World
from membound.spec.job import Job
from membound.trace.cache import MICRO_STEPS


def shortened(job: Job) -> Job:
    """`job` with no more micro-steps than differ: its first, a middle one and its last."""
    return job.model_copy(update={"recipe": job.recipe.model_copy(update={"accumulation": min(job.recipe.accumulation, MICRO_STEPS)})})


def header(job: Job, world: World, steps: int, model: torch.nn.Module, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of `membound.trace.schema.Header` other than its string tables, after `steps` steps of `shortened(job)`."""
    parameters, trained = _count(model)
    return {
        "job": job.model_dump(mode="json"),
        "versions": packages.installed(),
        "rank": world.rank,
        "ranks": job.gpus,
        "ranks_per_node": world.per_node,
        "steps": steps,
        "micro_steps": min(job.recipe.accumulation, MICRO_STEPS),
        "repeat": max(job.recipe.accumulation - MICRO_STEPS, 0) + 1,
        "notes": notes,
        "parameters": parameters,
        "trained": trained,
    }


def left_dense(model: torch.nn.Module) -> tuple[str, ...]:
    """A note on a model of 4-bit weights that keeps frozen matrices in 16 bits besides those of its vocabulary."""
    packed = _packed(model)
    if not packed:
        return ()
    ends = cast(Any, model).get_input_embeddings(), cast(Any, model).get_output_embeddings()
    vocabulary = {id(p) for layer in ends if layer is not None for p in layer.parameters()}
    dense = [p for p in model.parameters() if p.ndim > 1 and not p.requires_grad and id(p) not in packed and id(p) not in vocabulary]
    count = sum(p.numel() for p in dense)
    if not count:
        return ()
    kept = f"{count / 1e9:.3g} billion parameters stay in 16 bits: bitsandbytes quantises linear layers only"
    return (f"{kept}, and the installed Transformers holds these in tensors of their own (mixtures of experts)",)


def _count(model: torch.nn.Module) -> tuple[int, int]:
    """Parameters of `model`, all ranks together, and how many of them train."""
    packed = _packed(model)
    # A partitioned parameter remembers its whole size as ds_numel.
    sizes = [(packed.get(id(p)) or int(vars(p).get("ds_numel", p.numel())), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)


def _packed(model: torch.nn.Module) -> dict[int, int]:
    """By identity of each 4-bit weight, how many parameters are packed in it."""
    # The layer remembers its weight's shape in its quant_state, also where an engine has put another parameter in the weight's place.
    states = [(held["_parameters"].get("weight"), held["quant_state"]) for held in map(vars, model.modules()) if held.get("quant_state") is not None]
    return {id(weight): int(state.shape.numel()) for weight, state in states}
