"""What a model of ours returns: the part of a Transformers output that engines look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Output:
    """Holds the scalar `loss` of a micro-batch."""

    loss: torch.Tensor
