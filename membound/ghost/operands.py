"""Operands of an operation: the tensors among its arguments, and how each lies in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from membound.trace.builder import TraceBuilder
from membound.trace.schema import LAYOUT

Operand = tuple[torch.Tensor, int]
"""A tensor, and the number of the storage that it lies in."""


class Forms:
    """What the builder says of a tensor besides its storage, worked out once for each shape, strides and type."""

    def __init__(self, builder: TraceBuilder) -> None:
        self._builder = builder
        self._known: dict[tuple[Any, ...], tuple[int, int, int]] = {}

    def of(self, tensor: torch.Tensor) -> tuple[int, int, int]:
        """Bytes touched (broadcast dimensions count once), code of type and shape, code of the layout."""
        key = (tensor.shape, tensor.stride(), tensor.dtype)
        known = self._known.get(key)
        if known is None:
            touched = 1
            for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
                touched *= size if stride else 1
            text = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}".replace(" ", "")
            layout = LAYOUT[_layout(tuple(tensor.shape), tuple(tensor.stride()))]
            known = self._known[key] = (touched * tensor.element_size(), self._builder.shapes.code(text), layout)
        return known


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """The tensors among `values`, those in lists and tuples included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def size_of(tensor: torch.Tensor) -> int:
    """B of all elements of `tensor`."""
    return tensor.numel() * tensor.element_size()


def offset_of(tensor: torch.Tensor) -> int:
    """Where in its storage `tensor` begins, B."""
    return int(tensor.storage_offset()) * tensor.element_size()


def _layout(shape: tuple[int, ...], strides: tuple[int, ...]) -> str:
    """How a tensor lies in memory: see `membound.trace.schema.LAYOUTS`. Sizes of 1 may have any stride."""
    dense = [(stride, size) for stride, size in zip(strides, shape, strict=True) if size != 1]
    if _packed(reversed(dense)):
        return "contiguous"
    return "permuted" if _packed(sorted(dense)) else "other"


def _packed(dimensions: Iterable[tuple[int, int]]) -> bool:
    """Whether dimensions of (stride, size), the innermost first, leave no gap."""
    expected = 1
    for stride, size in dimensions:
        if stride != expected:
            return False
        expected *= size
    return True
