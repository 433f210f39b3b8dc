"""The recorder: a dispatch mode that sees each operation of a running Program, fake or real, and writes it into a TraceBuilder."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch

from membound.ghost import device
from membound.ghost.operators import Operator, learn
from membound.ghost.private import DEVICE_OF, DispatchMode, FakeTensor, device_type, group_size, lift_from_host, storage_key
from membound.ghost.shortcut import Shortcut
from membound.ghost.whereabouts import Whereabouts
from membound.trace.builder import TraceBuilder
from membound.trace.schema import CATEGORY, KIND, LAYOUT, PLACE

_KERNEL, _VIEW, _H2D, _D2H, _COLLECTIVE, _HOST = (KIND[k] for k in ("kernel", "view", "copy_h2d", "copy_d2h", "collective", "host"))
_ACTIVATIONS, _TEMPORARIES, _COMMUNICATION = (CATEGORY[c] for c in ("activations", "temporaries", "communication"))

Answer = Callable[[str, torch.Tensor], Any]
Handler = Callable[["Recorder", Any, tuple[Any, ...], dict[str, Any]], Any]


class Recorder(DispatchMode):
    """Records every operation while it is entered.

    `gpu` is the type of the device whose memory counts as the GPU's: `ghost`, or `cpu` and `cuda` for real runs that the ghost
    is held against. `handlers` stand in for operators that cannot run fake; `hidden` says what memory CUDA's kernel of an operator
    takes beyond its outputs.
    """

    def __init__(
        self,
        gpu: str,
        handlers: dict[str, Handler] | None = None,
        hidden: dict[str, Callable[[tuple[Any, ...]], int]] | None = None,
    ) -> None:
        super().__init__()
        self.builder = TraceBuilder()
        self.where = Whereabouts(self.builder)
        self.failure: BaseException | None = None
        self.on_failure: Callable[[BaseException], None] | None = None
        self.gpu = gpu
        self.shortcut: Shortcut | None = None
        self._paused = 0
        self._threads: set[int] = set()
        self.made_by: dict[int, str] = {}
        self._handlers = handlers or {}
        self._hidden = hidden or {}
        self._operators: dict[Any, tuple[Operator, int, Handler | None]] = {}
        self._ids: dict[int, int] = {}
        self._refs: dict[int, Any] = {}
        self._shapes: dict[tuple[Any, ...], tuple[int, int, int]] = {}
        self._stream_of: dict[int, int] = {}

    # -- dispatch ---------------------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if types and any(_redispatches(t) for t in types):
            return NotImplemented  # a sharded tensor: its own rule runs first, its local operations come back here
        if func is DEVICE_OF:
            return args[0].fake_device if isinstance(args[0], FakeTensor) else func(*args)
        if get_ident() not in self._threads:
            self._threads.add(get_ident())
            if self.shortcut is not None:
                lift_from_host()
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        known = self._operators.get(func)
        if known is None:
            operator = learn(func)
            known = self._operators[func] = (operator, self.builder.ops.code(operator.name), self._handlers.get(operator.name))
        operator, code, handler = known
        try:
            if handler is not None:
                out = handler(self, func, args, kwargs)
                if not isinstance(out, torch.Tensor | list | tuple):
                    return out  # read back to the host: an answer, not a tensor
            else:
                out = func(*args, **kwargs) if self.shortcut is None else self.shortcut.run(func, args, kwargs)
            self._record(operator, code, args, kwargs, out)
        except BaseException as error:
            self._failed(error)
            raise
        return out

    def _failed(self, error: BaseException) -> None:
        # Told at once: the process may abort before this exception reaches any Python code again.
        self.failure = error
        if self.on_failure is not None:
            self.on_failure(error)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Nothing that happens inside is part of the program."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within a pause: what happens inside is part of the program after all."""
        before, self._paused = self._paused, 0
        try:
            yield
        finally:
            self._paused = before

    def _record(self, operator: Operator, code: int, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        self.where.update()
        # What a literal was read from (torch.tensor(0.0)) is the result itself; on the ghost, a real tensor that stands beside it.
        read = [] if operator.name == "aten.lift_fresh.default" else list(_tensors(args))
        if kwargs:
            read += _tensors(kwargs.values())
        made = list(_tensors((out,)))
        stream = device.current_stream().id
        pinned = bool(kwargs.get("pin_memory")) or operator.name == "aten._pin_memory.default"
        inputs = [(t, self._storage(t, stream, code)) for t in read if device_type(t) != "meta"]
        known = {s for _, s in inputs}
        outputs = [(t, self._storage(t, stream, code, pinned)) for t in made if device_type(t) != "meta"]
        fresh = [pair for pair in outputs if pair[1] not in known]
        written = fresh if not operator.mutates else fresh + self._written(operator, args, kwargs, stream)
        written += [outputs[i] for i in operator.fills]
        kind, nbytes = self._classify(operator, inputs, written)
        flops = 0.0
        if kind in {_KERNEL, _HOST}:
            self._take_hidden(operator, args, stream, code)
            if operator.flops is not None:
                flops = float(operator.flops(*args, **kwargs, out_val=out))
        ranks = group_size(args) if kind == _COLLECTIVE else 0
        row = self.builder.add(kind, code, stream, -1, nbytes, flops, ranks, operator.flagged(args, kwargs))
        if kind != _VIEW:
            most = operator.touches(args)
            self._operands(row, inputs, written, {} if most is None else {id(args[0]): most})
        for _, storage in written:
            self.made_by[storage] = operator.name

    def _written(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], stream: int) -> list[tuple[torch.Tensor, int]]:
        values = [args[i] for i in operator.writes if i < len(args)] + [kwargs[n] for n in operator.writes_by_name if n in kwargs]
        return [(t, self._storage(t, stream, 0)) for t in _tensors(values)]

    def _classify(self, operator: Operator, inputs: list[Any], written: list[Any]) -> tuple[int, int]:
        if operator.collective:
            tensors = written or inputs
            if tensors and device_type(tensors[0][0]) == self.gpu:
                for _, storage in (*inputs, *written):
                    self._retag(storage, _COMMUNICATION)
            return _COLLECTIVE, _moved(inputs, written)
        if operator.silent or not written:
            return _VIEW, 0
        target = device_type(written[0][0])
        if operator.copy and inputs:
            sources = [device_type(t) for t, _ in inputs]
            if target == self.gpu and any(s != self.gpu for s in sources if s != "meta"):
                return _H2D, written[0][0].numel() * written[0][0].element_size()
            if target != self.gpu and self.gpu in sources:
                return _D2H, written[0][0].numel() * written[0][0].element_size()
        return (_KERNEL if target == self.gpu else _HOST), 0

    def _operands(self, row: int, inputs: list[Any], written: list[Any], most: dict[int, int]) -> None:
        """Operands of instruction `row`; `most` says how many bytes are touched of a tensor, by its identity, where that is not all."""
        for write, pairs in enumerate((inputs, written)):
            for tensor, storage in pairs:
                nbytes, shape, layout = self._shape(tensor)
                self.builder.operand(row, write, storage, min(nbytes, most.get(id(tensor), nbytes)), shape, _offset(tensor), layout)

    def _take_hidden(self, operator: Operator, args: tuple[Any, ...], stream: int, code: int) -> None:
        rule = self._hidden.get(operator.name)
        if rule is not None and (nbytes := rule(args)):
            self.builder.transient(nbytes, stream, code)

    # -- storages ---------------------------------------------------------------------------------------------------------

    def _storage(self, tensor: torch.Tensor, stream: int, op: int, pinned: bool = False) -> int:
        storage = tensor.untyped_storage()
        key = storage_key(storage)
        known = self._ids.get(key)
        if known is not None:
            return known
        nbytes = 0 if device_type(tensor) == "meta" else storage.nbytes()  # a fake tensor's own storage always says meta
        return self._adopt(storage, key, self._place(tensor, pinned), nbytes, stream, op)

    def _place(self, tensor: torch.Tensor, pinned: bool) -> int:
        kind = device_type(tensor)
        if kind == self.gpu:
            return PLACE["gpu"]
        return PLACE["pinned"] if pinned else PLACE["host"]

    def _adopt(self, storage: torch.UntypedStorage, key: int, place: int, nbytes: int, stream: int, op: int) -> int:
        number = self.builder.alloc(place, nbytes, stream, op)
        self._ids[key] = number
        self._stream_of[number] = stream
        self._refs[key] = weakref.ref(storage, lambda _: self._died(key, number))
        return number

    def _died(self, key: int, number: int) -> None:
        if self._ids.get(key) == number:
            del self._ids[key]
        self._refs.pop(key, None)
        self.builder.free(number, self._stream_of.pop(number, 0))

    def resized(self, storage: torch.UntypedStorage, size: int) -> None:
        """The storage changes its size in place: what it held dies, what it will hold is new."""
        key = storage_key(storage)
        number = self._ids.get(key)
        if number is None or storage.nbytes() == size:
            return
        nbytes, place, category = self.builder.nbytes(number), self.builder.place_of(number), self.builder.category_of(number)
        if nbytes == size:
            return
        # Only sharding engines resize: what comes and goes so are parameters gathered for use.
        category = _COMMUNICATION if category == _TEMPORARIES else category
        self._refs.pop(key)
        self._died(key, number)
        reborn = self.builder.alloc(place, size, device.current_stream().id, 0, category)
        self._ids[key] = reborn
        self._stream_of[reborn] = device.current_stream().id
        self._refs[key] = weakref.ref(storage, lambda _: self._died(key, reborn))

    def number_of(self, tensor: torch.Tensor) -> int | None:
        """The storage number of `tensor`, if it has been seen."""
        return self._ids.get(storage_key(tensor.untyped_storage()))

    def adopt(self, tensors: Any) -> list[int]:
        """Storage numbers of `tensors`, seen for the first time if need be."""
        return [self._storage(t, 0, 0) for t in tensors]

    def launch(
        self,
        kind: str,
        name: str,
        reads: Iterable[torch.Tensor] = (),
        writes: Iterable[torch.Tensor] = (),
        *,
        nbytes: int = 0,
        flops: float = 0.0,
        read_storages: Iterable[int] = (),
        written_storages: Iterable[int] = (),
    ) -> None:
        """Record work that no dispatcher sees: an engine's own compiled operator, or file I/O. Storages are touched for `nbytes`."""
        self.where.update()
        code, stream = self.builder.ops.code(name), device.current_stream().id
        inputs = [(tensor, self._storage(tensor, stream, code)) for tensor in reads]
        outputs = [(tensor, self._storage(tensor, stream, code)) for tensor in writes]
        row = self.builder.add(KIND[kind], code, stream, -1, nbytes, flops)
        self._operands(row, inputs, outputs, {})
        for write, storages in enumerate((read_storages, written_storages)):
            for storage in storages:
                self.builder.operand(row, write, storage, nbytes, 0)

    def _retag(self, storage: int, category: int) -> None:
        # Before the first step ranks agree on their weights, which are not communication for that.
        if self.builder.position.step >= 0 and self.builder.category_of(storage) in {_ACTIVATIONS, _TEMPORARIES}:
            self.builder.categorise(storage, category)

    def _shape(self, tensor: torch.Tensor) -> tuple[int, int, int]:
        key = (tensor.shape, tensor.stride(), tensor.dtype)
        known = self._shapes.get(key)
        if known is None:
            touched = 1
            for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
                touched *= size if stride else 1
            text = f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}".replace(" ", "")
            layout = LAYOUT[_layout(tuple(tensor.shape), tuple(tensor.stride()))]
            known = self._shapes[key] = (touched * tensor.element_size(), self.builder.shapes.code(text), layout)
        return known


def _moved(inputs: list[tuple[torch.Tensor, int]], written: list[tuple[torch.Tensor, int]]) -> int:
    """Bytes of a collective as NCCL counts them: what a rank gathers, scatters or reduces in all, the larger of what it gives and gets."""
    got = {id(tensor) for tensor, _ in written}
    return max(_total(written), _total([pair for pair in inputs if id(pair[0]) not in got]))


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


def _offset(tensor: torch.Tensor) -> int:
    return int(tensor.storage_offset()) * tensor.element_size()


def _total(pairs: list[tuple[torch.Tensor, int]]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor, _ in pairs)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


_REDISPATCHING: dict[type, bool] = {}


def _redispatches(kind: type) -> bool:
    known = _REDISPATCHING.get(kind)
    if known is None:
        known = _REDISPATCHING[kind] = kind.__name__ in {"DTensor", "AsyncCollectiveTensor"}
    return known
