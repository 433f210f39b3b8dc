"""Large embedding tables, each whole on one rank: looked up for the whole global batch there, and sent to whose rows they are.

Their optimizer is SGD and steps within backward, on those rows alone that a batch touched, as production libraries fuse it (FBGEMM's
EXACT_SGD): a dense gradient would be as large as the table.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


def placement(rows: list[int], ranks: int) -> list[list[int]]:
    """Which tables each rank holds: the largest first, each to the rank with the fewest rows so far. Rank 0 gets the largest."""
    held: list[list[int]] = [[] for _ in range(ranks)]
    for table in sorted(range(len(rows)), key=lambda t: -rows[t]):
        least = min(range(ranks), key=lambda r: sum(rows[t] for t in held[r]))
        held[least].append(table)
    return held


class Tables(nn.Module):
    """Some tables of `width` features. `rate` is SGD's step for the gradient of the sum of all ranks' losses."""

    def __init__(self, rows: list[int], width: int, rate: float, device: torch.device, dtype: torch.dtype, values: bool) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.empty(count, width, device=device, dtype=dtype) for count in rows)
        self._rate = rate
        for weight in self.weights if values else ():
            nn.init.uniform_(weight, -(weight.shape[0] ** -0.5), weight.shape[0] ** -0.5)

    def forward(self, categories: torch.Tensor) -> torch.Tensor:
        """Rows of the tables [B, tables, width] for one category each, [tables, B]."""
        looked_up: list[torch.Tensor] = [_Lookup.apply(w, ids, self._rate) for w, ids in zip(self.weights, categories, strict=True)]  # type: ignore[no-untyped-call]
        return torch.stack(looked_up, dim=1)


class _Lookup(torch.autograd.Function):
    """Bags of one row each; backward subtracts the gradient from the rows, and asks nothing of an optimizer."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, ids: torch.Tensor, rate: float) -> torch.Tensor:
        ctx.weight, ctx.rate = weight, rate  # not saved: it is overwritten on purpose
        ctx.save_for_backward(ids)
        return F.embedding_bag(ids[:, None], weight, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, None, None]:
        (ids,) = ctx.saved_tensors
        ctx.weight.detach().index_add_(0, ids, grads[0].to(ctx.weight.dtype), alpha=-ctx.rate)
        return None, None, None


class Exchange(torch.autograd.Function):
    """All-to-all: each rank gives every rank its rows of its own tables, and gets its own rows of all tables; backward the other way."""

    @staticmethod
    def forward(ctx: Any, looked_up: torch.Tensor, counts: list[int], rank: int) -> torch.Tensor:
        """From [ranks x B, own tables, width] to [B, all tables, width], tables in the order of the ranks that hold them, `counts` each."""
        ctx.counts, ctx.rank, ctx.shape = counts, rank, looked_up.shape
        ranks, width = len(counts), looked_up.shape[2]
        rows = looked_up.shape[0] // ranks
        got = looked_up.new_empty(rows * sum(counts) * width)
        sizes = [rows * count * width for count in counts]
        torch.distributed.all_to_all_single(got, looked_up.reshape(-1), sizes, [sizes[rank]] * ranks)
        return torch.cat([part.view(rows, -1, width) for part in got.split(sizes)], dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        rows, _, width = grads[0].shape
        sent = torch.cat([part.reshape(-1) for part in grads[0].split(ctx.counts, dim=1)])
        sizes = [rows * count * width for count in ctx.counts]
        got = sent.new_empty(ctx.shape.numel())
        torch.distributed.all_to_all_single(got, sent, [sizes[ctx.rank]] * len(sizes), sizes)
        return got.view(ctx.shape), None, None
