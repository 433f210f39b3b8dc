"""Host time of the hooks that DeepSpeed's ZeRO-3 hangs on a module, with parameters and without, on the processor; a minute or two.

    python validation/measure_hooks.py OUT.csv

A chain of 80 tiny modules less one of 16, each plain and under the real engine: what one module takes, forward and backward, least of three rounds of
ten. Two ranks, of which this is one: collectives go to PyTorch's fake process group, so that no time of waiting for the other is in it.
"""

from __future__ import annotations

import csv
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

SHORT, LONG = 16, 80
ROUNDS, CALLS, WARM = 3, 10, 4
# What a module of the chain holds, and from how many numbers on ZeRO-3 partitions it: 0 all, a million none of these.
KINDS = {"none": ("none", 0), "frozen, partitioned": ("frozen", 0), "frozen, kept whole": ("frozen", 10**6), "trained, partitioned": ("trained", 0)}


class Scale(nn.Module):
    """Multiplies by a row of its weight, trained or frozen, or by 1 where it has none."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.weight = None if kind == "none" else nn.Parameter(torch.ones(64, 64, dtype=torch.bfloat16), requires_grad=kind == "trained")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1.0 if self.weight is None else x * self.weight[0]


def chain(kind: str, count: int) -> nn.Module:
    """One trained module, then `count` of `kind`, so that gradients go through all."""
    return nn.Sequential(Scale("trained"), *[Scale(kind) for _ in range(count)])


def both(kind: str, count: int, threshold: int | None) -> tuple[float, float]:
    """Least host seconds of forward and backward; plain where `threshold` is None."""
    model = chain(kind, count)
    run: Callable[[torch.Tensor], torch.Tensor] = model
    back: Callable[[torch.Tensor], object] = torch.Tensor.backward
    if threshold is not None:
        run, back = engine(model, threshold)
    x = torch.ones(1, 64, dtype=torch.bfloat16)
    forward, backward = [], []
    for _ in range(WARM + CALLS):
        begin = time.perf_counter()
        loss = run(x).sum()
        between = time.perf_counter()
        back(loss)
        forward.append(between - begin)
        backward.append(time.perf_counter() - between)
    return min(forward[WARM:]), min(backward[WARM:])


def engine(model: nn.Module, threshold: int) -> tuple[Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor], object]]:
    """Forward and backward of `model` under ZeRO-3, never at the end of an accumulation."""
    import deepspeed

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    zero = {"stage": 3, "stage3_param_persistence_threshold": threshold}
    config = {
        "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1000, "bf16": {"enabled": True},
        "zero_optimization": zero, "zero_allow_untested_optimizer": True,
    }  # fmt: skip
    made = deepspeed.initialize(model=model, model_parameters=trained, optimizer=torch.optim.SGD(trained, lr=0.1), config=config)[0]
    return made, made.backward


def main(path: Path) -> None:
    """Measure and write."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT="29517")
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    best: dict[tuple[str, str, str], float] = {}
    for _ in range(ROUNDS):
        for title, (kind, threshold) in KINDS.items():
            for way, at in (("plain", None), ("zero3", threshold)):
                few, many = both(kind, SHORT, at), both(kind, LONG, at)
                for index, name in enumerate(("forward", "backward")):
                    key = title, way, name
                    best[key] = min(best.get(key, float("inf")), (many[index] - few[index]) / (LONG - SHORT))
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["parameters", "way", "phase", "seconds"])
        rows.writerows([*key, f"{seconds:.4g}"] for key, seconds in best.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
