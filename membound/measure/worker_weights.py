"""Random weights in seconds: a large host tensor gets one block of normal numbers over and over, instead of billions of draws.

A training step neither knows nor cares: kernels take the same time over any finite numbers of the same spread, memory is touched just the
same, and every row differs from its neighbours, since no row length divides the block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch.overrides import TorchFunctionMode

# A prime, so that no matrix repeats itself by rows.
_BLOCK: Final = 131_071


@contextmanager
def quickly(device: torch.device | None) -> Iterator[None]:
    """Within: models are made with quick random weights; on `device`, or where their code says where it is None."""
    with _Quick():
        if device is None:
            yield
        else:
            with device:
                yield


class _Quick(TorchFunctionMode):
    """Answers the draws of `torch.nn.init` for large tensors on the host."""

    def __init__(self) -> None:
        super().__init__()
        self._block: torch.Tensor | None = None

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        target = args[0] if args else options.get("tensor")
        if not _draws(function) or not isinstance(target, torch.Tensor) or target.device.type != "cpu" or target.numel() <= _BLOCK:
            return function(*args, **options)
        return self._fill(target, _spread(function, target, args, options))

    def _fill(self, target: torch.Tensor, std: float) -> torch.Tensor:
        if self._block is None:
            self._block = torch.randn(_BLOCK)
        block = (self._block * std).to(target.dtype)
        with torch.no_grad():
            if not target.is_contiguous():
                return target.normal_(0.0, std)
            flat = target.detach().view(-1)
            whole = flat.numel() // _BLOCK
            flat[: whole * _BLOCK].view(whole, _BLOCK).copy_(block)
            flat[whole * _BLOCK :].copy_(block[: flat.numel() - whole * _BLOCK])
        return target


_NAMES: Final = frozenset({"normal_", "trunc_normal_", "kaiming_uniform_"})
# While Transformers makes a model it puts functions of its own in the place of `torch.nn.init`'s, and those are what is seen here.
_MODULES: Final = frozenset({"torch.nn.init", "transformers.initialization"})


def _draws(function: Callable[..., Any]) -> bool:
    """Whether `function` fills a tensor with random numbers of a spread that is known here."""
    return function is torch.Tensor.normal_ or (getattr(function, "__name__", "") in _NAMES and getattr(function, "__module__", "") in _MODULES)


def _spread(function: Callable[..., Any], target: torch.Tensor, args: tuple[Any, ...], options: Mapping[str, Any]) -> float:
    """The standard deviation that `function`, one that `_draws`, would draw with."""
    if function.__name__ == "kaiming_uniform_":
        # As a linear layer draws it: uniform within 1 / sqrt(inputs), whose variance is a third of that squared.
        return float((3.0 * target.shape[-1]) ** -0.5)
    return float(args[2] if len(args) > 2 else options.get("std", 1.0))
