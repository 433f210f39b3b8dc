"""Which 16-bit copies of weights autocast keeps, against PyTorch's own on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from membound.ghost import autocast

Make = Callable[[torch.nn.Parameter], torch.Tensor]


def without_graph(weight: torch.nn.Parameter) -> torch.Tensor:
    with torch.no_grad():
        return weight.t()


KINDS: dict[str, Make] = {
    "a weight": lambda weight: weight,
    "transposed": lambda weight: weight.t(),
    "transposed without a graph": without_graph,
    "frozen": lambda weight: weight.detach(),
    "of 16 bits": lambda weight: torch.nn.Parameter(weight.detach().to(torch.bfloat16)),
    "made of it": lambda weight: weight * 2,
}


class Copies(TorchDispatchMode):
    """How many copies of another type are made."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_use_casts_again_where_pytorchs_does(kind: str) -> None:
    tensor = KINDS[kind](torch.nn.Parameter(torch.randn(4, 4)))
    x = torch.randn(4, 4, dtype=torch.bfloat16)
    with Copies() as real, torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            torch.mm(x, tensor)
    autocast._cache.clear()
    with Copies() as ours:
        for _ in range(2):
            autocast.cast(tensor, torch.bfloat16)
    autocast._cache.clear()
    assert ours.count == real.count
