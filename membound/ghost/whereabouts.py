"""Where in the model an operation stems from: the module whose forward runs, or whose forward made the node whose backward runs; and the line."""

from __future__ import annotations

import bisect
import sys
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from membound.ghost.private.graphs import current_autograd_number, next_autograd_number
from membound.trace.builder import TraceBuilder

# Files whose lines mean something to the reader: models, adapters, engines, optimizers; PyTorch's own plumbing does not.
_TELLING = (
    *("/transformers/models/", "/transformers/loss/", "/peft/tuners/", "/bitsandbytes/", "/deepspeed/runtime/", "/torch/optim/", "/fsdp/"),
    *("/membound/programs/vision_", "/membound/programs/recurrent_", "/membound/programs/recommender_", "/membound/programs/lamb"),
)
_DEPTH = 60


class Whereabouts:
    """Keeps the builder's position at the module and line that are running."""

    def __init__(self, builder: TraceBuilder) -> None:
        self._builder = builder
        self._paths: dict[int, int] = {}
        self._stack: list[int] = []
        self._numbers: list[int] = []
        self._origins: list[tuple[int, int]] = []
        self._next = 0
        # By identity of a code object, whose own hash takes longer than all the rest; it is kept alive beside.
        self._telling: dict[int, tuple[str | None, Any]] = {}
        self._lines: dict[tuple[int, int], int] = {}
        self._hooks: list[Any] = []

    def watch(self, model: torch.nn.Module) -> None:
        """Follow the modules of `model` by their paths."""
        for path, module in model.named_modules():
            self._paths[id(module)] = self._builder.modules.code(_plain(path))
        if not self._hooks:
            self._hooks = [
                register_module_forward_pre_hook(self._enter),
                register_module_forward_hook(self._leave, always_call=True),
            ]

    def close(self) -> None:
        """Stop following."""
        for hook in self._hooks:
            hook.remove()

    def _enter(self, module: torch.nn.Module, args: Any) -> None:
        self._stack.append(self._paths.get(id(module), self._stack[-1] if self._stack else 0))

    def _leave(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        if self._stack:
            self._stack.pop()

    def update(self) -> None:
        """Set the builder's position for the operation that just ran."""
        at = self._builder.position
        number = current_autograd_number()
        if number is not None and not self._stack:
            at.module, at.line = self._origin(number)
            return
        at.module = self._stack[-1] if self._stack else 0
        at.line = self._line()
        if number is None:
            self._remember(at.module, at.line)

    def _remember(self, module: int, line: int) -> None:
        upcoming = next_autograd_number()
        if upcoming > self._next:
            # Nodes from the last number seen up to this one were made by this operation.
            self._numbers.append(self._next)
            self._origins.append((module, line))
            self._next = upcoming

    def _origin(self, number: int) -> tuple[int, int]:
        at = bisect.bisect_right(self._numbers, number) - 1
        return self._origins[at] if at >= 0 else (0, 0)

    def _line(self) -> int:
        frame: Any = sys._getframe(3)
        telling = self._telling
        for _ in range(_DEPTH):
            if frame is None:
                return 0
            code = frame.f_code
            known = telling.get(id(code))
            if known is None:
                known = telling[id(code)] = (_short(code.co_filename), code)
            if known[0] is not None:
                return self._line_in(frame, known[0])
            frame = frame.f_back
        return 0

    def _line_in(self, frame: Any, short: str) -> int:
        key = (id(frame.f_code), frame.f_lasti)  # a line's number is worked out from the instruction's
        known = self._lines.get(key)
        if known is None:
            known = self._lines[key] = self._builder.lines.code(f"{short}:{frame.f_lineno}")
        return known


def _short(filename: str) -> str | None:
    for part in _TELLING:
        at = filename.rfind(part)
        if at >= 0:
            return filename[at + 1 :]
    return None


def _plain(path: str) -> str:
    """Module paths without what adapters wrap around a model."""
    return path.removeprefix("base_model.model.").removeprefix("module.")
