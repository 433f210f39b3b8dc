"""A memory of what operators give: the same operator on the same shapes makes the same tensors, without asking PyTorch again.

A transformer repeats one layer dozens of times; PyTorch's own cache of fake results spends most of the capture on computing its keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from membound.ghost.operands import tensors_in
from membound.ghost.private.fakes import FakeTensor, FakeTensorMode, Makes, storage_key

_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
# Whose operators are functions of what they are given.
_SPACES = {"aten", "bitsandbytes"}
# Gives a view of its argument, though its schema does not say so.
_VIEWS = {"_unsafe_view"}
# Gives its first argument another storage.
_REPLACES = {"set_"}

# Defaults of `slice` after its tensor: dimension, start, end, step.
_WHOLE: tuple[Any, ...] = (0, None, None, 1)

Sort = Literal["new", "view", "slice", "placed", "write", "other"]
_SPECIAL_VIEWS: dict[str, Sort] = {"slice": "slice", "as_strided": "placed"}


@dataclass(frozen=True)
class _Made:
    """One result: a new tensor, or a view of the first argument."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    """Elements from the beginning of a new tensor's storage, or from where the first argument begins."""
    dtype: torch.dtype
    device: torch.device


@dataclass(frozen=True)
class _Known:
    """All results of a call, in the container that it returned (None: a lone tensor)."""

    container: type | None
    made: tuple[_Made | None, ...]
    view: bool


class Shortcut:
    """Results of operators by operator, shapes, strides, types, devices and plain arguments."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self._makes = Makes(mode)
        self._sorts: dict[Any, Sort] = {}
        self._known: dict[Any, _Known] = {}
        self._written: set[Any] = set()

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `func(*args, **kwargs)` gives, from memory where that is sure to be the same."""
        sort = self._sorts.get(func)
        if sort is None:
            sort = self._sorts[func] = _sort(func)
        if sort == "other":
            return func(*args, **kwargs)
        if sort == "write":
            return self._write(func, args, kwargs)
        asked, shift = _from_start(args) if sort == "slice" and not kwargs else (args, 0)
        place = args[0].storage_offset() if sort == "placed" else 0
        # An operator may give the default type where it is told none.
        key = (func, _key(asked), _key(tuple(kwargs.items())) if kwargs else None, place, torch.get_default_dtype())
        known = self._known.get(key)
        if known is not None:
            return self._again(known, args, shift)
        out = func(*args, **kwargs)
        learned = _learn(out, args, sort != "new", shift)
        if learned is not None:
            self._known[key] = learned
        return out

    def _again(self, known: _Known, args: tuple[Any, ...], shift: int) -> Any:
        if known.view:
            start = args[0].storage_offset() + shift
            tensors: list[Any] = [None if m is None else self._makes.view(args[0], m.shape, m.stride, start + m.offset) for m in known.made]
        else:
            tensors = [None if m is None else self._makes.new(m.shape, m.stride, m.dtype, m.device) for m in known.made]
        return tensors[0] if known.container is None else known.container(tensors)

    def _write(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What an operator gives that writes its first argument in place: that very argument, or nothing."""
        # A real tensor must not be kept by a key, nor one forget that it is a constant.
        if not all(isinstance(t, FakeTensor) and t.constant is None for t in tensors_in(args)):
            return func(*args, **kwargs)
        key = (func, _key(args, False), _key(tuple(kwargs.items()), False) if kwargs else None)
        given = args[0] if func._schema.returns else None
        if key in self._written:
            return given
        before = [_form(t) for t in tensors_in(args[:1])]
        out = func(*args, **kwargs)
        if out is given and before == [_form(t) for t in tensors_in(args[:1])]:
            self._written.add(key)
        return out


def _sort(func: Any) -> Sort:
    """`new`: writes nothing, gives new tensors. `view`: gives views of its first argument; `slice`: one that begins where it is told;
    `placed`: one that lies where it is told. `write`: writes its first argument alone, and gives it or nothing. `other`: ask PyTorch each time."""
    schema = func._schema
    name, arguments, returns = schema.name.split("::")[1], schema.arguments, schema.returns
    if func.namespace not in _SPACES or name in _REPLACES or any(str(r.type) not in {"Tensor", "Optional[Tensor]", "List[Tensor]"} for r in returns):
        return "other"
    aliased = [i for i, a in enumerate(arguments) if a.alias_info is not None]
    if returns and not aliased and not any(r.alias_info is not None for r in returns):
        return "view" if name in _VIEWS else "new"
    if aliased != [0] or len(returns) > 1:
        return "other"
    if arguments[0].alias_info.is_write:
        alone = not returns or str(returns[0].type) == "Tensor"
        return "write" if alone and not arguments[0].kwarg_only else "other"
    return _SPECIAL_VIEWS.get(name, "view")


def _from_start(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], int]:
    """The arguments of `slice` that give the same from the first element on, and how many elements later it begins."""
    tensor, dim, start, end, step = (*args, *_WHOLE[len(args) - 1 :])
    size = tensor.shape[dim]
    first, last, _ = slice(start, end).indices(size)
    return (tensor, dim, 0, max(last - first, 0), step), first * tensor.stride(dim)


def _key(values: Any, numbers: bool = True) -> Any:
    """What results hang on of the arguments `values`; `numbers`: of the floating-point ones too, rather than their being there."""
    parts: list[Any] = []
    for value in values:
        if isinstance(value, FakeTensor):
            parts.append((value.shape, value.stride(), value.dtype, value.fake_device))
        elif isinstance(value, list | tuple):
            parts.append((type(value), _key(value, numbers)))
        elif isinstance(value, _PLAIN):
            parts.append((type(value), value) if numbers or type(value) is not float else float)
        else:
            parts.append((id(value), value))  # its identity: alike only if it is the same, and kept alive by the key
    return tuple(parts)


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype, storage_key(tensor.untyped_storage())


def _learn(out: Any, args: tuple[Any, ...], view: bool, shift: int) -> _Known | None:
    tensors = list(out) if isinstance(out, list | tuple) else [out]
    if any(t is not None and type(t) is not FakeTensor for t in tensors):
        return None
    taken = {storage_key(t.untyped_storage()) for t in tensors_in(args)}
    shares = [t is not None and storage_key(t.untyped_storage()) in taken for t in tensors]
    if view != all(shares) or (not view and any(shares)):
        return None
    if view and (type(args[0]) is not FakeTensor or any(t.dtype != args[0].dtype for t in tensors)):
        return None
    if not view and any(t is not None and t.storage_offset() for t in tensors):
        return None
    begins = args[0].storage_offset() + shift if view else 0
    made = tuple(None if t is None else _Made(tuple(t.shape), t.stride(), t.storage_offset() - begins, t.dtype, t.fake_device) for t in tensors)
    return _Known(type(out) if isinstance(out, list | tuple) else None, made, view)
