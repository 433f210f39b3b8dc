"""The recorder: a dispatch mode that sees each operation of a running Program, fake or real, and writes it into a TraceBuilder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch

from membound.ghost import device
from membound.ghost.operands import Forms, Operand, offset_of, size_of, tensors_in
from membound.ghost.operators import Operator, learn
from membound.ghost.private.distributed import group_size
from membound.ghost.private.fakes import DEVICE_OF, DispatchMode, FakeTensor, device_type, lift_from_host
from membound.ghost.repeats import Form, Noted, Repeat, repeat_of
from membound.ghost.shortcut import Shortcut
from membound.ghost.storages import Storages
from membound.ghost.whereabouts import Whereabouts
from membound.trace.builder import TraceBuilder
from membound.trace.schema import CATEGORY, KIND

_KERNEL, _VIEW, _H2D, _D2H, _COLLECTIVE, _HOST = (KIND[k] for k in ("kernel", "view", "copy_h2d", "copy_d2h", "collective", "host"))
_ACTIVATIONS, _TEMPORARIES, _COMMUNICATION = (CATEGORY[c] for c in ("activations", "temporaries", "communication"))

Handler = Callable[["Recorder", Any, tuple[Any, ...], dict[str, Any]], Any]
"""Stands in for an operator: called with the recorder, the operator and its arguments, it returns what the operator would."""


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
        self.storages = Storages(self.builder, gpu)
        self.made_by: dict[int, str] = {}
        self.failure: BaseException | None = None
        self.on_failure: Callable[[BaseException], None] | None = None
        self.gpu = gpu
        self.shortcut: Shortcut[Repeat] | None = None
        self._paused = 0
        self._threads: set[int] = set()
        self._handlers = handlers or {}
        self._hidden = hidden or {}
        # By identity: an operator's own hash is Python's, and slow. The operator, last, is kept alive.
        self._operators: dict[int, tuple[Operator, int, Handler | None, Any]] = {}
        self._forms = Forms(self.builder)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is DEVICE_OF and type(args[0]) is FakeTensor:  # two in three calls: PyTorch's C++ asks at every turn
            return args[0].fake_device
        if _any_redispatches(types):
            return NotImplemented  # a sharded tensor: its own rule runs first, its local operations come back here
        if func is DEVICE_OF:
            return args[0].fake_device if isinstance(args[0], FakeTensor) else func(*args)
        if get_ident() not in self._threads:
            self._enter_thread()
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        operator, code, handler, _ = self._operators.get(id(func)) or self._learn(func)
        try:
            if handler is not None and (handler is not without_pinning or kwargs.get("pin_memory")):
                out = handler(self, func, args, kwargs)
                if not isinstance(out, torch.Tensor | list | tuple):
                    return out  # read back to the host: an answer, not a tensor
            elif self.shortcut is not None and (call := self.shortcut.look_up(func, args, kwargs)) is not None:
                known = call.known
                if known is None:
                    out, known = self.shortcut.first(call, func, args, kwargs)
                    noted = self._record(operator, code, args, kwargs, out)
                    if known is not None:
                        known.note = repeat_of(noted, call, known, operator, code, self._forms)
                    return out
                out = self.shortcut.again(known, args, call.shift)
                if known.note is not None:
                    self._repeat(known.note, call.tensors, out)
                    return out
            else:
                out = func(*args, **kwargs)
            self._record(operator, code, args, kwargs, out)
        except BaseException as error:
            self._failed(error)
            raise
        return out

    def ask(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the operator `func` itself gives."""
        return func(*args, **kwargs) if self.shortcut is None else self.shortcut.run(func, args, kwargs)

    def _enter_thread(self) -> None:
        self._threads.add(get_ident())
        if self.shortcut is not None:
            lift_from_host()

    def _learn(self, func: Any) -> tuple[Operator, int, Handler | None, Any]:
        operator = learn(func)
        known = self._operators[id(func)] = (operator, self.builder.ops.code(operator.name), self._handlers.get(operator.name), func)
        return known

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

    def _repeat(self, repeat: Repeat, tensors: list[torch.Tensor], out: Any) -> None:
        """What `_record` does, for a call of which all is known but the storages of `tensors`, its arguments, and of its results."""
        self.where.update()
        stream = device.current_stream().id
        numbers = self.storages.all_of(tensors, stream, repeat.code)
        if repeat.written is None:
            made = [out] if isinstance(out, torch.Tensor) else [tensor for tensor in out if tensor is not None]
            written = self.storages.all_of(made, stream, repeat.code)
        else:
            made, written = tensors, numbers[: repeat.written]
        if repeat.hidden:
            self.builder.transient(repeat.hidden, stream, repeat.code)
        row = self.builder.add(repeat.kind, repeat.code, stream, -1, repeat.nbytes, repeat.flops, 0, repeat.flag)
        if repeat.kind != _VIEW:
            self._touched(row, 0, repeat.reads, tensors, numbers)
            self._touched(row, 1, repeat.writes, made, written)
        for storage in written:
            self.made_by[storage] = repeat.name

    def _touched(self, row: int, write: int, forms: tuple[Form, ...], tensors: Sequence[Any], storages: Sequence[int]) -> None:
        for (nbytes, shape, layout, size), tensor, storage in zip(forms, tensors, storages, strict=False):  # not all arguments may be written
            self.builder.operand(row, write, storage, nbytes, shape, tensor.storage_offset() * size, layout)

    def _record(self, operator: Operator, code: int, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Noted:
        self.where.update()
        # What a literal was read from (torch.tensor(0.0)) is the result itself; on the ghost, a real tensor that stands beside it.
        read = [] if operator.name == "aten.lift_fresh.default" else list(tensors_in(args))
        if kwargs:
            read += tensors_in(kwargs.values())
        made = list(tensors_in((out,)))
        stream = device.current_stream().id
        pinned = bool(kwargs.get("pin_memory")) or operator.name == "aten._pin_memory.default"
        inputs = [(t, self.storages.of(t, stream, code)) for t in read if device_type(t) != "meta"]
        known = {s for _, s in inputs}
        outputs = [(t, self.storages.of(t, stream, code, pinned)) for t in made if device_type(t) != "meta"]
        fresh = [pair for pair in outputs if pair[1] not in known]
        written = fresh if not operator.mutates else fresh + self._written(operator, args, kwargs, stream)
        written += [outputs[i] for i in operator.fills]
        kind, nbytes = self._classify(operator, inputs, written)
        flops, hidden = 0.0, 0
        if kind in {_KERNEL, _HOST}:
            hidden = self._take_hidden(operator, args, stream, code)
            if operator.flops is not None:
                flops = float(operator.flops(*args, **kwargs, out_val=out))
        ranks = group_size(args) if kind == _COLLECTIVE else 0
        flag = operator.flagged(args, kwargs)
        row = self.builder.add(kind, code, stream, -1, nbytes, flops, ranks, flag)
        if kind != _VIEW:
            most = operator.touches(args)
            self._operands(row, inputs, written, {} if most is None else {id(args[0]): most})
        for _, storage in written:
            self.made_by[storage] = operator.name
        return Noted(inputs, written, kind, nbytes, flops, flag, hidden, pinned)

    def _written(self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], stream: int) -> list[Operand]:
        values = [args[i] for i in operator.writes if i < len(args)] + [kwargs[n] for n in operator.writes_by_name if n in kwargs]
        return [(t, self.storages.of(t, stream, 0)) for t in tensors_in(values)]

    def _classify(self, operator: Operator, inputs: list[Operand], written: list[Operand]) -> tuple[int, int]:
        if operator.collective:
            sent = written or inputs
            if sent and device_type(sent[0][0]) == self.gpu:
                for _, storage in (*inputs, *written):
                    self._communicates(storage)
            return _COLLECTIVE, _moved(inputs, written)
        if operator.silent or not written:
            return _VIEW, 0
        target = device_type(written[0][0])
        if operator.copy and inputs:
            sources = [device_type(t) for t, _ in inputs]
            if target == self.gpu and any(s != self.gpu for s in sources if s != "meta"):
                return _H2D, size_of(written[0][0])
            if target != self.gpu and self.gpu in sources:
                return _D2H, size_of(written[0][0])
        return (_KERNEL if target == self.gpu else _HOST), 0

    def _operands(self, row: int, inputs: list[Operand], written: list[Operand], most: dict[int, int]) -> None:
        """Operands of instruction `row`; `most` says how many bytes are touched of a tensor, by its identity, where that is not all."""
        for write, pairs in enumerate((inputs, written)):
            for tensor, storage in pairs:
                nbytes, shape, layout = self._forms.of(tensor)
                self.builder.operand(row, write, storage, min(nbytes, most.get(id(tensor), nbytes)), shape, offset_of(tensor), layout)

    def _take_hidden(self, operator: Operator, args: tuple[Any, ...], stream: int, code: int) -> int:
        rule = self._hidden.get(operator.name)
        nbytes = 0 if rule is None else rule(args)
        if nbytes:
            self.builder.transient(nbytes, stream, code)
        return nbytes

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
        inputs = [(tensor, self.storages.of(tensor, stream, code)) for tensor in reads]
        outputs = [(tensor, self.storages.of(tensor, stream, code)) for tensor in writes]
        row = self.builder.add(KIND[kind], code, stream, -1, nbytes, flops)
        self._operands(row, inputs, outputs, {})
        for write, storages in enumerate((read_storages, written_storages)):
            for storage in storages:
                self.builder.operand(row, write, storage, nbytes, 0)

    def _communicates(self, storage: int) -> None:
        # Before the first step ranks agree on their weights, which are not communication for that.
        if self.builder.position.step >= 0 and self.builder.category_of(storage) in {_ACTIVATIONS, _TEMPORARIES}:
            self.builder.categorise(storage, _COMMUNICATION)


def without_pinning(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A handler, for calls that ask for pinned memory alone: fake tensors have none."""
    return recorder.ask(func, args, {k: v for k, v in kwargs.items() if k != "pin_memory"})


def _moved(inputs: list[Operand], written: list[Operand]) -> int:
    """Bytes of a collective as NCCL counts them: what a rank gathers, scatters or reduces in all, the larger of what it gives and gets."""
    got = {id(tensor) for tensor, _ in written}
    return max(sum(size_of(tensor) for tensor, _ in written), sum(size_of(tensor) for tensor, _ in inputs if id(tensor) not in got))


@functools.cache
def _any_redispatches(kinds: tuple[type, ...]) -> bool:
    return any(kind.__name__ in {"DTensor", "AsyncCollectiveTensor"} for kind in kinds)
