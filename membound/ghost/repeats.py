"""What the recorder writes of a call that it has recorded before: the same rows, but for where the program stands and which storages it touches."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from membound.ghost.operands import Forms, Operand
from membound.ghost.operators import Operator
from membound.ghost.private.fakes import FakeTensor
from membound.ghost.shortcut import Call, Known
from membound.trace.schema import KIND

Form = tuple[int, int, int, int]
"""Of an operand: bytes touched, code of type and shape, code of the layout, B of one element."""


@dataclass(frozen=True)
class Noted:
    """What was recorded of one call."""

    inputs: list[Operand]
    written: list[Operand]
    kind: int
    nbytes: int
    flops: float
    flag: int
    hidden: int
    """Memory that its kernel takes beyond its outputs, B."""
    pinned: bool


@dataclass(frozen=True, slots=True)
class Repeat:
    """What every call has in common that `Shortcut` answers alike."""

    name: str
    code: int
    kind: int
    nbytes: int
    flops: float
    flag: int
    hidden: int
    reads: tuple[Form, ...]
    """Of each tensor among the arguments, in order; none where nothing is touched."""
    writes: tuple[Form, ...]
    written: int | None
    """How many of the first arguments are written; None where all results are, and are new."""


def repeat_of(noted: Noted, call: Call[Repeat], known: Known[Repeat], operator: Operator, code: int, forms: Forms) -> Repeat | None:
    """What can be repeated of a call that has been `noted`; None where its rows hang on more than `call.key`."""
    read, written = [t for t, _ in noted.inputs], [t for t, _ in noted.written]
    fresh = call.sort == "new"
    if noted.pinned or operator.rows is not None or not all(isinstance(t, FakeTensor) for t in (*read, *written)):
        return None  # of rows that are looked up it counts whether the table is among the other arguments as well
    results = sum(made is not None for made in known.made)
    if not _same(read, call.tensors) or not (len(written) == results if fresh else _same(written, read[: len(written)])):
        return None  # some of them lie on no device
    touched = ([], []) if noted.kind == KIND["view"] else (read, written)
    reads, writes = (tuple((*forms.of(t), t.element_size()) for t in tensors) for tensors in touched)
    count = None if fresh else len(written)
    return Repeat(operator.name, code, noted.kind, noted.nbytes, noted.flops, noted.flag, noted.hidden, reads, writes, count)


def _same(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return list(map(id, some)) == list(map(id, others))
