"""The recommender Program: NCF on pairs of user and item, DLRM on numbers and categories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from membound.errors import InputError
from membound.programs import models, synthetic
from membound.programs.program import Batch, Batches, Program
from membound.programs.recommender_dlrm import Dlrm
from membound.programs.recommender_ncf import NeuMf
from membound.programs.recommender_tables import placement
from membound.programs.world import World
from membound.spec.job import Job


@final
@dataclass(frozen=True)
class Recommender(Program):
    """`recipe.micro_batch` samples for each rank."""

    def model(self, world: World) -> nn.Module:
        """DLRM's tables are on the device. Raises `InputError` for what tables cannot do."""
        dtype = models.weight_dtype(self.job.recipe)
        if self.config["model_type"] == "neumf":
            return NeuMf(self.config).to(dtype).train()
        _check_tables(self.job, self.config)
        return Dlrm(self.config, world, self.job.recipe.learning_rate, dtype).to(dtype).train()

    def batches(self, world: World) -> Batches:
        return lambda index: self._batch(synthetic.generator(index, world.rank), world.rank)

    def planned(self) -> Batch:
        return self._batch(None, 0)

    def _batch(self, draw: torch.Generator | None, rank: int) -> Batch:
        rows = self.job.recipe.micro_batch
        if self.config["model_type"] == "neumf":
            return _pairs(self.config, rows, draw)
        return _samples(self.config, rows, self.job.gpus, rank, draw)


def _ids(count: int, shape: tuple[int, ...], draw: torch.Generator | None) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64) if draw is None else torch.randint(count, shape, generator=draw)


def _pairs(config: dict[str, Any], rows: int, draw: torch.Generator | None) -> Batch:
    """Users of even number take items of even number."""
    users, items = _ids(config["users"], (rows,), draw), _ids(config["items"], (rows,), draw)
    return {"users": users, "items": items, "labels": ((users + items) % 2 == 0).float()}


def _samples(config: dict[str, Any], rows: int, ranks: int, rank: int, draw: torch.Generator | None) -> Batch:
    """This rank's samples, and every rank's categories for the tables that this rank holds; a sample is taken if its first number is positive."""
    numbers = torch.zeros(rows, config["numbers"]) if draw is None else torch.randn(rows, config["numbers"], generator=draw)
    own = placement(config["tables"], ranks)[rank]
    categories = torch.stack([_ids(config["tables"][table], (rows * ranks,), draw) for table in own])
    return {"numbers": numbers, "categories": categories, "labels": (numbers[:, 0] > 0).float()}


def _check_tables(job: Job, config: dict[str, Any]) -> None:
    if job.gpus > len(config["tables"]):
        raise InputError("gpus", job.gpus, f"{job.model} has {len(config['tables'])} tables, each whole on one GPU: use no more GPUs than that")
    if job.recipe.precision in {"fp16-mixed", "bf16"}:
        raise InputError("recipe.precision", job.recipe.precision, "tables step in fp32 and without loss scaling: write bf16-mixed or fp32")
    if job.recipe.accumulation > 1:
        raise InputError("recipe.accumulation", job.recipe.accumulation, "tables step in every backward: raise micro_batch instead")
