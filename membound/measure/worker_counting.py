"""How many parameters a model has, whichever engine holds it."""

from __future__ import annotations

import torch


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Parameters of `model`, all ranks together, and how many of them train."""
    # A 4-bit layer remembers its weight's shape, also where an engine has put another parameter in the weight's place.
    layers = [held for held in map(vars, model.modules()) if held.get("quant_state") is not None]
    packed = {id(held["_parameters"].get("weight")): int(held["quant_state"].shape.numel()) for held in layers}
    # ZeRO-3 remembers a partitioned parameter's whole size as ds_numel.
    sizes = [(packed.get(id(p)) or int(vars(p).get("ds_numel", p.numel())), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trains in sizes if trains)
