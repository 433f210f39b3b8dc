"""Builds a Trace row by row. Append-only Python lists while the program runs; numpy at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from membound.trace.schema import CATEGORY, INSTRUCTIONS, KIND, OPERANDS, PLACE, STORAGES, Header, Trace


class Strings:
    """Text to code and back; the empty text is code 0."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {"": 0}

    def code(self, text: str) -> int:
        """The code of `text`, new if need be."""
        return self._codes.setdefault(text, len(self._codes))

    def all(self) -> tuple[str, ...]:
        """All texts, by code."""
        return tuple(self._codes)


@dataclass
class Position:
    """Where in the program the next instruction stands."""

    phase: int = 0
    step: int = -1
    micro: int = -1
    module: int = 0
    line: int = 0


@dataclass
class TraceBuilder:
    """Collects instructions, operands and storages; `finish` makes the Trace."""

    position: Position = field(default_factory=Position)
    ops: Strings = field(default_factory=Strings)
    modules: Strings = field(default_factory=Strings)
    lines: Strings = field(default_factory=Strings)
    shapes: Strings = field(default_factory=Strings)
    _instructions: list[tuple[Any, ...]] = field(default_factory=list)
    _operands: list[tuple[int, int, int, int, int, int, int]] = field(default_factory=list)
    _storages: list[list[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self._instructions)

    def add(
        self, kind: int, op: int = 0, stream: int = 0, target: int = -1, nbytes: int = 0, flops: float = 0.0, ranks: int = 0, flag: int = 0
    ) -> int:
        """Append one instruction at the present position; returns its row number."""
        at = self.position
        row = len(self._instructions)
        self._instructions.append((kind, op, stream, at.phase, at.step, at.micro, at.module, at.line, target, nbytes, flops, ranks, flag))
        return row

    def operand(self, instruction: int, write: int, storage: int, nbytes: int, shape: int, offset: int = 0, layout: int = 0) -> None:
        """Say that `instruction` reads (0) or writes (1) `nbytes` of `storage`, from byte `offset` on."""
        self._operands.append((instruction, write, storage, nbytes, shape, offset, layout))

    def alloc(self, place: int, nbytes: int, stream: int = 0, op: int = 0, category: int = CATEGORY["temporaries"]) -> int:
        """A new storage comes to life; returns its number."""
        storage = len(self._storages)
        self._storages.append([place, nbytes, category, self.position.module, self.position.line, op])
        self.add(KIND["alloc"], op, stream, storage, nbytes)
        return storage

    def free(self, storage: int, stream: int = 0) -> None:
        """`storage` dies."""
        self.add(KIND["free"], 0, stream, storage, self._storages[storage][1])

    def transient(self, nbytes: int, stream: int, op: int) -> None:
        """Memory that an operation takes and gives back within itself."""
        self.free(self.alloc(PLACE["gpu"], nbytes, stream, op), stream)

    def categorise(self, storage: int, category: int) -> None:
        """Say what `storage` holds."""
        self._storages[storage][2] = category

    def place(self, storage: int, place: int) -> None:
        """Move `storage` to another kind of memory in name, as pinning in place does."""
        self._storages[storage][0] = place

    def locate(self, storage: int, module: int) -> None:
        """Say which module `storage` belongs to."""
        self._storages[storage][3] = module

    def nbytes(self, storage: int) -> int:
        """Size of `storage`."""
        return self._storages[storage][1]

    def place_of(self, storage: int) -> int:
        """Which memory `storage` is in."""
        return self._storages[storage][0]

    def category_of(self, storage: int) -> int:
        """What `storage` holds."""
        return self._storages[storage][2]

    def finish(self, **header: Any) -> Trace:
        """The Trace; `header` holds the fields of `Header` other than its string tables."""
        texts = {name: getattr(self, name).all() for name in ("ops", "modules", "lines", "shapes")}
        return Trace(
            Header(**header, **texts),
            _columns(self._instructions, INSTRUCTIONS),
            _columns(self._operands, OPERANDS),
            _columns(self._storages, STORAGES),
        )


def _columns(rows: list[Any], types: dict[str, Any]) -> dict[str, Any]:
    if not rows:
        return {name: np.empty(0, dtype) for name, dtype in types.items()}
    columns = zip(*rows, strict=True)
    return {name: np.array(column, dtype) for (name, dtype), column in zip(types.items(), columns, strict=True)}
