"""A memory of what operators give: the same operator on the same shapes makes the same tensors, without asking PyTorch again.

A transformer repeats one layer dozens of times; PyTorch's own cache of fake results spends most of the capture on computing its keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from membound.ghost.operands import tensors_in
from membound.ghost.private.fakes import FakeTensor, FakeTensorMode, fake_view, make_fake, storage_key

_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)

Sort = Literal["new", "view", "other"]


@dataclass(frozen=True)
class _Made:
    """One result: a new tensor, or a view of the first argument."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class _Known:
    """All results of a call, in the container that it returned (None: a lone tensor)."""

    container: type | None
    made: tuple[_Made | None, ...]
    view: bool


class Shortcut:
    """Results of operators by operator, shapes, strides, offsets, types, devices and plain arguments."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._sorts: dict[Any, Sort] = {}
        self._known: dict[Any, _Known] = {}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `func(*args, **kwargs)` gives, from memory where that is sure to be the same."""
        sort = self._sorts.get(func)
        if sort is None:
            sort = self._sorts[func] = _sort(func)
        if sort == "other":
            return func(*args, **kwargs)
        key = (func, _key(args), _key(tuple(kwargs.items())) if kwargs else None)
        known = self._known.get(key)
        if known is not None:
            return self._again(known, args)
        out = func(*args, **kwargs)
        learned = _learn(out, args, sort == "view")
        if learned is not None:
            self._known[key] = learned
        return out

    def _again(self, known: _Known, args: tuple[Any, ...]) -> Any:
        if known.view:
            made = known.made[0]
            assert made is not None
            return fake_view(self._mode, args[0], made.shape, made.stride, made.offset)
        tensors = [None if m is None else make_fake(self._mode, m.shape, m.stride, m.dtype, m.device) for m in known.made]
        return tensors[0] if known.container is None else known.container(tensors)


def _sort(func: Any) -> Sort:
    """`new`: writes nothing, gives new tensors. `view`: gives one view of its first argument. `other`: ask PyTorch each time."""
    schema = func._schema
    arguments, returns = schema.arguments, schema.returns
    if func.namespace != "aten" or not returns or not any("Tensor" in str(a.type) for a in arguments):
        return "other"
    if any(str(r.type) not in {"Tensor", "Optional[Tensor]", "List[Tensor]"} for r in returns):
        return "other"
    aliased = [i for i, a in enumerate(arguments) if a.alias_info is not None]
    if not aliased and not any(r.alias_info is not None for r in returns):
        return "new"
    lone = len(returns) == 1 and str(returns[0].type) == "Tensor" and aliased == [0]
    return "view" if lone and not arguments[0].alias_info.is_write else "other"


def _key(values: Any) -> Any:
    parts: list[Any] = []
    for value in values:
        if isinstance(value, FakeTensor):
            parts.append((value.shape, value.stride(), value.storage_offset(), value.dtype, value.fake_device))
        elif isinstance(value, list | tuple):
            parts.append((type(value), _key(value)))
        elif isinstance(value, _PLAIN):
            parts.append((type(value), value))
        else:
            parts.append((id(value), value))  # its identity: alike only if it is the same, and kept alive by the key
    return tuple(parts)


def _learn(out: Any, args: tuple[Any, ...], view: bool) -> _Known | None:
    tensors = list(out) if isinstance(out, list | tuple) else [out]
    if any(t is not None and type(t) is not FakeTensor for t in tensors):
        return None
    taken = {storage_key(t.untyped_storage()) for t in tensors_in(args)}
    shares = [t is not None and storage_key(t.untyped_storage()) in taken for t in tensors]
    if view != all(shares) or (not view and any(shares)):
        return None
    if view and (type(args[0]) is not FakeTensor or tensors[0].dtype != args[0].dtype):
        return None
    if not view and any(t is not None and t.storage_offset() for t in tensors):
        return None
    made = tuple(None if t is None else _Made(tuple(t.shape), t.stride(), t.storage_offset(), t.dtype, t.fake_device) for t in tensors)
    return _Known(type(out) if isinstance(out, list | tuple) else None, made, view)
