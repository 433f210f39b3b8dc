"""A Trace, read for comparison: each phase of each micro-step as its operators, and the memory that came and went between them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from membound.trace.choice import Choice, Launch, Side
from membound.trace.schema import KIND, KINDS, PHASES, PLACE, Trace

Where = tuple[int, int, str]
"""Step, micro-step and phase of a block."""
Memory = Counter[tuple[int, str]]
"""How many blocks of so many bytes, made by that operator, came (+) or went (-)."""

_OPERATORS: Final = frozenset(KIND[kind] for kind in ("kernel", "view", "copy_h2d", "copy_d2h", "collective", "host"))
# Renames memory and launches nothing; a fake parameter is made through it, a real one is not.
_IGNORED: Final = frozenset({"aten.detach.default"})
_BEFORE: Final = frozenset({"load", "prepare"})
_ALLOC, _FREE, _COLLECTIVE = KIND["alloc"], KIND["free"], KIND["collective"]


@dataclass
class Block:
    """The operators of one phase of one micro-step, and what was allocated (+) and freed (-) before each and after the last."""

    launches: list[Launch] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=lambda: [Counter()])


def blocks_of(trace: Trace, side: Side, choices: Sequence[Choice]) -> dict[Where, Block]:
    """The blocks of `trace` from the first micro-step on; `choices` say what an operator that stands for another must agree in."""
    columns = {name: column.tolist() for name, column in trace.instructions.items()}
    launches = _launches(trace, columns)
    makers = [trace.header.ops[code] for code in trace.storages["op"].tolist()]
    places = trace.storages["place"].tolist()
    blocks: dict[Where, Block] = {}
    for row, kind in enumerate(columns["kind"]):
        where = (columns["step"][row], columns["micro"][row], PHASES[columns["phase"][row]])
        if where[0] < 0 or where[2] in _BEFORE:
            continue
        block = blocks.setdefault(where, Block())
        if kind in {_ALLOC, _FREE}:
            storage = columns["target"][row]
            if places[storage] != PLACE["nvme"] and columns["nbytes"][row]:
                block.memory[-1][(columns["nbytes"][row], makers[storage])] += 1 if kind == _ALLOC else -1
        elif row in launches:
            block.launches.append(_paired(launches[row], side, choices))
            block.memory.append(Counter())
    return blocks


def _launches(trace: Trace, columns: Mapping[str, list[Any]]) -> dict[int, Launch]:
    """The operators of `trace` by row; the key of each is what it reads, what it writes, and counts."""
    header = trace.header
    reads, writes = _operands(trace)
    found: dict[int, Launch] = {}
    for row, (kind, code) in enumerate(zip(columns["kind"], columns["op"], strict=True)):
        if kind not in _OPERATORS or header.ops[code] in _IGNORED:
            continue
        read, written = reads.get(row, ()), writes.get(row, ())
        collective = (columns["nbytes"][row], columns["ranks"][row]) if kind == _COLLECTIVE else ()
        detail = " ".join(shape for shape, _ in (*read, ("->", 0), *written))
        key = (read, written, columns["flops"][row], *collective)
        found[row] = Launch(header.ops[code], key, detail, KINDS[kind], header.lines[columns["line"][row]])
    return found


_Operands = dict[int, tuple[tuple[str, int], ...]]


def _operands(trace: Trace) -> tuple[_Operands, _Operands]:
    sides: tuple[_Operands, _Operands] = {}, {}
    columns = (trace.operands[name].tolist() for name in ("instruction", "write", "shape", "nbytes"))
    for row, write, shape, nbytes in zip(*columns, strict=True):
        side = sides[write]
        side[row] = (*side.get(row, ()), (trace.header.shapes[shape], nbytes))
    return sides


def _paired(launch: Launch, side: Side, choices: Sequence[Choice]) -> Launch:
    """`launch` with what it must agree in as its key: of one that stands for another, the first operands alone."""
    reads, writes, *counts = launch.key
    for choice in choices:
        for number, pair in enumerate(choice.paired):
            if re.fullmatch(pair[0 if side == "real" else 1], launch.op):
                return replace(launch, key=(choice.name, number, reads[: choice.same[0]], writes[: choice.same[1]]), choice=choice.name)
    return replace(launch, key=(launch.op, reads, writes, *counts))
