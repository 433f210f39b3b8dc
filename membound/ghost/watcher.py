"""Follows a Program for the recorder: phases, module paths, and what each storage holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from membound.ghost.recorder import Recorder
from membound.programs.world import Phase
from membound.trace.schema import CATEGORY, PHASE

FLAT = "(all parameters, flattened)"
"""The module of a block that holds many modules' parameters side by side, as ZeRO lays them out."""


class GhostWatcher:
    """Writes the Program's phases and tags into the recorder's builder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @contextmanager
    def phase(self, name: Phase, step: int = -1, micro: int = -1) -> Iterator[None]:
        at = self._recorder.builder.position
        before = at.phase, at.step, at.micro
        at.phase, at.step, at.micro = PHASE[name], step, micro
        try:
            yield
        finally:
            at.phase, at.step, at.micro = before

    def watch_model(self, model: torch.nn.Module) -> None:
        self._recorder.where.watch(model)
        builder = self._recorder.builder
        owners: dict[int, set[str]] = {}
        for path, parameter in model.named_parameters():
            local = _local(parameter)
            number = self._recorder.storages.number_of(local)
            if number is not None and local.numel():
                owners.setdefault(number, set()).add(path.rpartition(".")[0].removeprefix("base_model.model."))
        for number, paths in owners.items():
            builder.locate(number, builder.modules.code(min(paths) if len(paths) == 1 else FLAT))

    def tag(self, category: str, tensors: Any) -> None:
        code = CATEGORY[category]
        builder = self._recorder.builder
        for tensor in tensors:
            number = self._recorder.storages.number_of(_local(tensor))
            # What holds weights is not also gradients: the first, more lasting, name stays.
            if number is not None and builder.category_of(number) in {CATEGORY["temporaries"], CATEGORY["communication"]}:
                builder.categorise(number, code)

    def loss(self, step: int, loss: torch.Tensor) -> None: ...

    def step_done(self, step: int) -> None: ...


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """This rank's part of a sharded tensor; any other tensor itself."""
    local = vars(type(tensor)).get("to_local")
    return local(tensor).detach() if local is not None and type(tensor).__name__ == "DTensor" else tensor
