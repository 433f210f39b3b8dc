"""One of two ranks that share DLRM's tables: holds what it looks up and updates against one process that has them all. Run by a test."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from membound.programs.recommender_dlrm import Dlrm
from membound.programs.recommender_tables import Exchange, placement
from membound.programs.world import World

RATE = 0.5


def main(rank: int, port: str, config: dict[str, Any]) -> None:
    """Assert that rows and updates are the same, bit for bit and to rounding."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    whole = Dlrm(config, World(torch.device("cpu")), RATE, torch.float32).tables
    ours = Dlrm(config, World(torch.device("cpu"), rank=rank, size=2), RATE, torch.float32).tables
    alone, held = placement(config["tables"], 1)[0], placement(config["tables"], 2)
    place = [alone.index(table) for table in held[0] + held[1]]
    for own, table in zip(ours.weights, held[rank], strict=True):
        own.data.copy_(whole.weights[alone.index(table)].data)

    torch.manual_seed(1)
    ids = torch.stack([torch.randint(count, (8,)) for count in config["tables"]])
    found: torch.Tensor = Exchange.apply(ours(ids[held[rank]]), [len(tables) for tables in held], rank)
    wanted = whole(ids[alone])[:, place]
    assert torch.equal(found, wanted[4 * rank : 4 * rank + 4])

    slopes = torch.randn(2, *found.shape)
    (found * slopes[rank]).sum().backward()
    (wanted * slopes.flatten(0, 1)).sum().backward()
    for own, table in zip(ours.weights, held[rank], strict=True):
        # Each of two ranks' losses is a mean over its own half: their sum moves a row half as far.
        step = torch.zeros_like(own.data).index_add_(0, ids[table], slopes.flatten(0, 1)[:, (held[0] + held[1]).index(table)], alpha=-RATE / 2)
        assert torch.allclose(whole.weights[alone.index(table)].data - own.data, step, atol=1e-6)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
