"""PyTorch's compiler, where nothing is compiled: importing it takes a second, and whoever compiles while it is imported runs nothing of that here."""

from __future__ import annotations

from typing import Any

import torch


def nothing_is_compiled() -> None:
    """`torch.compile` gives back what it is given, or a decorator that does: bitsandbytes compiles operators for other devices with it, and DeepSpeed
    those of its Muon."""

    def given(model: Any = None, **options: Any) -> Any:
        return (lambda function: function) if model is None else model

    torch.compile = given
