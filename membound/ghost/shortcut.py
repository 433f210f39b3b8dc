"""A memory of what operators give: the same operator on the same shapes makes the same tensors, without asking PyTorch again.

A transformer repeats one layer dozens of times; PyTorch's own cache of fake results spends most of the capture on computing its keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

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
Note = TypeVar("Note")


@dataclass(frozen=True)
class _Made:
    """One result: a new tensor, or a view of the first argument."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    """Elements from the beginning of a new tensor's storage, or from where the first argument begins."""
    dtype: torch.dtype
    device: torch.device


@dataclass(slots=True)
class Known(Generic[Note]):
    """All results of a call, in the container that it returned (None: a lone tensor)."""

    container: type | None
    made: tuple[_Made | None, ...]
    sort: Literal["new", "view", "write"]
    """`write`: the first argument was written in place, and is given back where `container` is not None."""
    note: Note | None = None
    """What the asker wants to know again when the call repeats: it depends on nothing but what the result depends on."""


@dataclass(slots=True)
class Call(Generic[Note]):
    """A call that may have been seen before."""

    sort: Sort
    key: Any
    tensors: list[torch.Tensor]
    """The tensors among the arguments, in order; None of them is real if the call is known."""
    shift: int
    known: Known[Note] | None


class Shortcut(Generic[Note]):
    """Results of operators by operator, shapes, strides, types, devices and plain arguments."""

    def __init__(self, mode: FakeTensorMode) -> None:
        self._makes = Makes(mode)
        # By identity: an operator's own hash is Python's, and slow. The operator beside it is kept alive.
        self._sorts: dict[int, tuple[Sort, Any]] = {}
        self._known: dict[Any, Known[Note]] = {}

    def look_up(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call[Note] | None:
        """What is known of `func(*args, **kwargs)`; None for an operator that PyTorch is asked each time."""
        sort = (self._sorts.get(id(func)) or self._sorted(func))[0]
        if sort == "other":
            return None
        tensors: list[Any] = []
        if sort == "write":
            key: Any = (id(func), _key(args, tensors, False), _key(kwargs.items(), tensors, False) if kwargs else None)
            # A real tensor must not be kept by a key, nor one forget that it is a constant.
            for tensor in tensors:
                if not isinstance(tensor, FakeTensor) or tensor.constant is not None:
                    return None
            return Call(sort, key, tensors, 0, self._known.get(key))
        asked, shift = _from_start(args) if sort == "slice" and not kwargs else (args, 0)
        place = args[0].storage_offset() if sort == "placed" else 0
        # An operator may give the default type where it is told none.
        key = (id(func), _key(asked, tensors), _key(kwargs.items(), tensors) if kwargs else None, place, torch.get_default_dtype())
        return Call(sort, key, tensors, shift, self._known.get(key))

    def again(self, known: Known[Note], args: tuple[Any, ...], shift: int) -> Any:
        """The results of a call that is known."""
        if known.sort == "write":
            return args[0] if known.container else None
        made = known.made
        if known.sort == "view":
            base = args[0]
            if known.container is None:
                (only,) = made
                return None if only is None else self._makes.view(base, only.shape, only.stride, shift + only.offset)
            return known.container([None if m is None else self._makes.view(base, m.shape, m.stride, shift + m.offset) for m in made])
        if known.container is None:
            (only,) = made
            return None if only is None else self._makes.new(only.shape, only.stride, only.dtype, only.device)
        return known.container([None if m is None else self._makes.new(m.shape, m.stride, m.dtype, m.device) for m in made])

    def first(self, call: Call[Note], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Known[Note] | None]:
        """What PyTorch gives for a call that is not known, and what is known of it from now on, if anything."""
        before = [_form(t) for t in tensors_in(args[:1])] if call.sort == "write" else []
        out = func(*args, **kwargs)
        learned: Known[Note] | None
        if call.sort == "write":
            given = args[0] if func._schema.returns else None
            same = out is given and before == [_form(t) for t in tensors_in(args[:1])]
            learned = Known(None if given is None else type(given), (), "write") if same else None
        else:
            learned = _learn(out, args, call.sort != "new", call.shift)
        if learned is not None:
            self._known[call.key] = learned
        return out, learned

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `func(*args, **kwargs)` gives, from memory where that is sure to be the same."""
        call = self.look_up(func, args, kwargs)
        if call is None:
            return func(*args, **kwargs)
        return self.first(call, func, args, kwargs)[0] if call.known is None else self.again(call.known, args, call.shift)

    def _sorted(self, func: Any) -> tuple[Sort, Any]:
        found = self._sorts[id(func)] = (_sort(func), func)
        return found


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


def _key(values: Any, tensors: list[torch.Tensor], numbers: bool = True) -> Any:
    """What results hang on of the arguments `values`, whose tensors go into `tensors`; `numbers`: of the floating-point ones too, rather than
    their being there."""
    parts: list[Any] = []
    for value in values:
        kind = type(value)
        if kind is FakeTensor or isinstance(value, FakeTensor):  # also bitsandbytes' own parameters, which are a class of their own
            tensors.append(value)
            parts.append((value.shape, value.stride(), value.dtype, value.fake_device))
        elif kind is int or value is None:  # the most frequent; every other plain value stands beside its type, as 1 equals 1.0 and True
            parts.append(value)
        elif isinstance(value, list | tuple):
            parts.append((kind, _key(value, tensors, numbers)))
        elif isinstance(value, _PLAIN):
            parts.append((kind, value) if numbers or kind is not float else float)
        else:
            if isinstance(value, torch.Tensor):
                tensors.append(value)
            parts.append((id(value), value))  # its identity: alike only if it is the same, and kept alive by the key
    return tuple(parts)


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype, storage_key(tensor.untyped_storage())


def _learn(out: Any, args: tuple[Any, ...], view: bool, shift: int) -> Known[Any] | None:
    tensors = list(out) if isinstance(out, list | tuple) else [out]
    if any(t is not None and type(t) is not FakeTensor for t in tensors):
        return None
    taken = {storage_key(t.untyped_storage()) for t in tensors_in(args)}
    shares = [t is not None and storage_key(t.untyped_storage()) in taken for t in tensors]
    if view != all(shares) or (not view and any(shares)):
        return None
    if view and (not isinstance(args[0], FakeTensor) or any(t.dtype != args[0].dtype for t in tensors)):
        return None
    if not view and any(t is not None and t.storage_offset() for t in tensors):
        return None
    begins = args[0].storage_offset() + shift if view else 0
    made = tuple(None if t is None else _Made(tuple(t.shape), t.stride(), t.storage_offset() - begins, t.dtype, t.fake_device) for t in tensors)
    return Known(type(out) if isinstance(out, list | tuple) else None, made, "view" if view else "new")
