"""Made-up micro-batches that a model can learn from: each is drawn anew from its number and rank, so that any can be asked for at any time."""

from __future__ import annotations

import torch


def generator(index: int, rank: int) -> torch.Generator:
    """The source of random numbers of micro-batch `index` on `rank`."""
    return torch.Generator().manual_seed(index * 65_537 + rank)


def chains(rows: int, tokens: int, vocabulary: int, draw: torch.Generator) -> torch.Tensor:
    """Token ids [rows, tokens] in which each follows from the one before, so that what is hidden or comes next can be guessed; int64."""
    first = torch.randint(vocabulary, (rows, 1), generator=draw)
    return (first + 7 * torch.arange(tokens)) % vocabulary
