"""Where a Program runs: which device, which rank of how many, and who is told as it goes along."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Protocol

import torch

Phase = Literal["load", "prepare", "data", "forward", "backward", "optimizer", "save"]


class Watcher(Protocol):
    """Is told by the Program what it is about to do; records on the ghost, marks time on real hardware."""

    def phase(self, name: Phase, step: int = -1, micro: int = -1) -> AbstractContextManager[None]:
        """Everything inside belongs to phase `name` of optimizer step `step`, micro-step `micro` (-1: before the first)."""
        ...

    def watch_model(self, model: torch.nn.Module) -> None:
        """The model stands: its module paths may be followed from here on."""
        ...

    def tag(self, category: str, tensors: Any) -> None:
        """`tensors` (nested as they are) hold `category`: weights, gradients or optimizer."""
        ...

    def loss(self, step: int, loss: torch.Tensor) -> None:
        """The loss of the last micro-step of `step`."""
        ...

    def step_done(self, step: int) -> None:
        """Optimizer step `step` is complete."""
        ...


class Unwatched:
    """A Watcher that does not look."""

    def phase(self, name: Phase, step: int = -1, micro: int = -1) -> AbstractContextManager[None]:
        return nullcontext()

    def watch_model(self, model: torch.nn.Module) -> None: ...

    def tag(self, category: str, tensors: Any) -> None: ...

    def loss(self, step: int, loss: torch.Tensor) -> None: ...

    def step_done(self, step: int) -> None: ...


@dataclass(frozen=True)
class World:
    """One rank's surroundings."""

    device: torch.device
    _: KW_ONLY
    rank: int = 0
    size: int = 1
    """Ranks in all."""
    per_node: int = 1
    """Ranks on one node."""
    weights: Literal["random", "empty"] = "random"
    """`empty` skips the initialisation of values that nobody will look at."""
    saves: bool = False
    """Whether to end as recipes do: rank 0 gathers the trained weights on the host. Nothing is written to disk."""
    watcher: Watcher = field(default_factory=Unwatched)
