"""Holds one Trace against another, operator by operator and byte by byte: how the ghost's is held against that of a real run.

Within each phase of each micro-step the two sequences of operators are aligned by name, operands and FLOPs. Between one aligned
operator and the next, both sides must allocate and free the same numbers of bytes, so that as much is alive after each. In a real run
on the CPU host and device are one memory: all places count together. What differs is returned, each difference with the name of the
choice that accounts for it, or with none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any, Final, Literal

from membound.trace.schema import KIND, KINDS, PHASES, PLACE, Trace

Side = Literal["real", "ghost"]

_OPERATORS: Final = frozenset(KIND[kind] for kind in ("kernel", "view", "copy_h2d", "copy_d2h", "collective", "host"))
# Renames memory and launches nothing; a fake parameter is made through it, a real one is not.
_IGNORED: Final = frozenset({"aten.detach.default"})
_BEFORE: Final = frozenset({"load", "prepare"})
_ALLOC, _FREE, _COLLECTIVE = KIND["alloc"], KIND["free"], KIND["collective"]


@dataclass(frozen=True)
class Launch:
    """One operator: what it is called and touches."""

    op: str
    key: tuple[Any, ...]
    """What it must agree in with its like on the other side."""
    detail: str
    kind: str
    line: str
    choice: str = ""
    """Name of the choice by which it may stand for another."""


@dataclass(frozen=True)
class Choice:
    """A difference that is known: which operators only one side launches, and which stand for one another."""

    name: str
    reason: str
    real: str = ""
    """Regular expression for the names of operators that only the real run launches."""
    ghost: str = ""
    """The same for the ghost."""
    paired: tuple[tuple[str, str], ...] = ()
    """Operators of the real run and of the ghost that do the same, as regular expressions; memory that they make may differ."""
    same: tuple[int, int] = (2, 1)
    """How many of the first operands that a pair reads, and that it writes, are equal all the same."""
    memory: str = ""
    """Regular expression for operators whose memory may differ though they are the same on both sides."""
    sizes: frozenset[int] | None = None
    """Bytes of a block of memory that may differ; None for any."""
    kinds: frozenset[str] = frozenset(KINDS)
    """Kinds of instruction that may be on one side alone."""
    line: str = ""
    """Regular expression for the source line that launches it."""
    after: str = ""
    """Regular expression for the operator before it."""
    before: str = ""
    """Regular expression for the operator after it; the like of itself aside."""

    def accounts_for(self, side: Side, launch: Launch, previous: str, following: str) -> bool:
        """Whether `launch`, between the operators `previous` and `following`, may be on this side alone."""
        wanted = (
            (self.real if side == "real" else self.ghost, launch.op),
            (self.line or ".*", launch.line),
            (self.after or ".*", previous),
            (self.before or ".*", following),
        )
        return launch.kind in self.kinds and all(pattern and re.fullmatch(pattern, text) for pattern, text in wanted)

    def makes(self, side: Side, op: str, nbytes: int) -> bool:
        """Whether a block of `nbytes` that `op` made may be on this side alone."""
        if self.sizes is not None and nbytes not in self.sizes:
            return False
        patterns = [self.real, *(r for r, _ in self.paired)] if side == "real" else [self.ghost, *(g for _, g in self.paired)]
        return any(pattern and re.fullmatch(pattern, op) for pattern in (*patterns, self.memory))


@dataclass(frozen=True)
class Difference:
    """One operator, or one block of memory, that one side has and the other has not."""

    choice: str
    """Name of the choice that accounts for it; empty if none does."""
    side: Side | Literal["both"]
    """Who has it; of a pair whose operators or operands differ, both."""
    what: Literal["operator", "alloc", "free"]
    phase: str
    step: int
    micro: int
    op: str
    """The operator, or the one that made the memory."""
    detail: str
    """Its operands, or the operator before which the memory came or went."""
    nbytes: int = 0

    def __str__(self) -> str:
        at = f"step {self.step} micro {self.micro} {self.phase}"
        return f"[{self.choice or 'UNEXPLAINED'}] {at}: {self.side}: {self.what} {self.op} {self.nbytes or ''} {self.detail}"


@dataclass(frozen=True)
class Comparison:
    """What came of holding two Traces against each other."""

    aligned: int
    """Operators that both sides launched."""
    differences: tuple[Difference, ...]

    @property
    def unexplained(self) -> tuple[Difference, ...]:
        """Those that no choice accounts for."""
        return tuple(d for d in self.differences if not d.choice)

    @property
    def choices(self) -> frozenset[str]:
        """Names of the choices that accounted for something."""
        return frozenset(d.choice for d in self.differences if d.choice)

    @property
    def drift(self) -> int:
        """The most by which the bytes alive on the two sides ever differed after an aligned operator."""
        signs = {("real", "alloc"): 1, ("real", "free"): -1, ("ghost", "alloc"): -1, ("ghost", "free"): 1}
        ahead = most = 0
        for difference in self.differences:
            ahead += signs.get((difference.side, difference.what), 0) * difference.nbytes
            most = max(most, abs(ahead))
        return most


@dataclass
class _Block:
    """The operators of one phase of one micro-step, and what was allocated (+) and freed (-) before each and after the last."""

    launches: list[Launch] = field(default_factory=list)
    memory: list[Counter[tuple[int, str]]] = field(default_factory=lambda: [Counter()])


_Where = tuple[int, int, str]


def compare(real: Trace, ghost: Trace, choices: Sequence[Choice]) -> Comparison:
    """Hold `ghost` against `real` from the first micro-step on."""
    left, right = _blocks(real, "real", choices), _blocks(ghost, "ghost", choices)
    aligned, found = 0, list[Difference]()
    for where in sorted(left.keys() | right.keys(), key=lambda at: (at[0], at[1], PHASES.index(at[2]))):
        mine, theirs = left.get(where, _Block()), right.get(where, _Block())
        pairs = _align(mine, theirs)
        aligned += len(pairs)
        found += _operators(where, mine, theirs, pairs, choices)
        found += _unlike_pairs(where, mine, theirs, pairs)
        found += _memory(where, mine, theirs, pairs, choices)
    return Comparison(aligned, tuple(found))


def differences(real: Trace, ghost: Trace, allowed: Sequence[Choice]) -> list[Difference]:
    """All that differs, labelled where one of `allowed` accounts for it."""
    return list(compare(real, ghost, allowed).differences)


# -- reading a Trace ------------------------------------------------------------------------------------------------------


def _blocks(trace: Trace, side: Side, choices: Sequence[Choice]) -> dict[_Where, _Block]:
    columns = {name: column.tolist() for name, column in trace.instructions.items()}
    reads, writes = _operands(trace)
    makers = [trace.header.ops[code] for code in trace.storages["op"].tolist()]
    places = trace.storages["place"].tolist()
    blocks: dict[_Where, _Block] = {}
    for row, kind in enumerate(columns["kind"]):
        where = (columns["step"][row], columns["micro"][row], PHASES[columns["phase"][row]])
        if where[0] < 0 or where[2] in _BEFORE:
            continue
        block = blocks.setdefault(where, _Block())
        if kind in {_ALLOC, _FREE}:
            storage = columns["target"][row]
            if places[storage] != PLACE["nvme"] and columns["nbytes"][row]:
                block.memory[-1][(columns["nbytes"][row], makers[storage])] += 1 if kind == _ALLOC else -1
        elif kind in _OPERATORS and trace.header.ops[columns["op"][row]] not in _IGNORED:
            collective = (columns["nbytes"][row], columns["ranks"][row]) if kind == _COLLECTIVE else ()
            launch = Launch(
                op=trace.header.ops[columns["op"][row]],
                key=(reads.get(row, ()), writes.get(row, ()), columns["flops"][row], *collective),
                detail=" ".join(shape for shape, _ in (*reads.get(row, ()), ("->", 0), *writes.get(row, ()))),
                kind=KINDS[kind],
                line=trace.header.lines[columns["line"][row]],
            )
            block.launches.append(_paired(launch, side, choices))
            block.memory.append(Counter())
    return blocks


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


# -- aligning two blocks --------------------------------------------------------------------------------------------------


def _align(real: _Block, ghost: _Block) -> list[tuple[int, int]]:
    a, b = [launch.key for launch in real.launches], [launch.key for launch in ghost.launches]
    if a == b:
        return [(i, i) for i in range(len(a))]
    matches = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    return [(i + n, j + n) for i, j, size in matches for n in range(size)]


def _operators(where: _Where, real: _Block, ghost: _Block, pairs: list[tuple[int, int]], choices: Sequence[Choice]) -> Iterator[Difference]:
    step, micro, phase = where
    sides: tuple[tuple[Side, _Block, set[int]], ...] = (("real", real, {i for i, _ in pairs}), ("ghost", ghost, {j for _, j in pairs}))
    for side, block, matched in sides:
        for number, launch in enumerate(block.launches):
            if number not in matched:
                around = _other(block.launches[:number][::-1], launch.op), _other(block.launches[number + 1 :], launch.op)
                choice = next((c.name for c in choices if c.accounts_for(side, launch, *around)), "")
                yield Difference(choice, side, "operator", phase, step, micro, launch.op, launch.detail)


def _unlike_pairs(where: _Where, real: _Block, ghost: _Block, pairs: list[tuple[int, int]]) -> Iterator[Difference]:
    """Operators that stand for one another by a choice, and are not the same."""
    step, micro, phase = where
    for i, j in pairs:
        a, b = real.launches[i], ghost.launches[j]
        if (a.op, a.detail) != (b.op, b.detail):
            yield Difference(a.choice, "both", "operator", phase, step, micro, a.op, f"{a.detail}, for {b.op} {b.detail}")


def _other(launches: list[Launch], op: str) -> str:
    """The first operator other than `op`."""
    return next((launch.op for launch in launches if launch.op != op), "")


def _memory(where: _Where, real: _Block, ghost: _Block, pairs: list[tuple[int, int]], choices: Sequence[Choice]) -> Iterator[Difference]:
    last = (len(real.memory), len(ghost.memory))
    after = (0, 0)
    for i, j in [*((i + 1, j + 1) for i, j in pairs), last]:
        mine, theirs = _total(real.memory[after[0] : i]), _total(ghost.memory[after[1] : j])
        if mine != theirs:
            before = real.launches[i - 1].op if i <= len(real.launches) else "the end"
            yield from _unequal(where, mine, theirs, before, choices)
        after = (i, j)


def _total(parts: list[Counter[tuple[int, str]]]) -> Counter[tuple[int, str]]:
    total: Counter[tuple[int, str]] = Counter()
    for part in parts:
        for event, count in part.items():
            total[event] += count
    return total


def _unequal(
    where: _Where, real: Counter[tuple[int, str]], ghost: Counter[tuple[int, str]], before: str, choices: Sequence[Choice]
) -> Iterator[Difference]:
    """Differences between what came and went on both sides: by size; the operators that made it say whose choice it was."""
    step, micro, phase = where
    for size in sorted({nbytes for nbytes, _ in (*real, *ghost)}):
        balance = sum(n for (nbytes, _), n in real.items() if nbytes == size) - sum(n for (nbytes, _), n in ghost.items() if nbytes == size)
        if not balance:
            continue
        for side, op, count in _blamed(size, balance, real, ghost, choices):
            choice = next((c.name for c in choices if c.makes(side, op, size)), "")
            what: Literal["alloc", "free"] = "alloc" if count > 0 else "free"
            for _ in range(abs(count)):
                yield Difference(choice, side, what, phase, step, micro, op, f"before {before}", size)


def _blamed(
    size: int, balance: int, real: Counter[tuple[int, str]], ghost: Counter[tuple[int, str]], choices: Sequence[Choice]
) -> Iterator[tuple[Side, str, int]]:
    """Of the makers that count differently on the two sides, as many events as there are too many: those of known choices first."""
    makers = sorted({op for nbytes, op in (*real, *ghost) if nbytes == size})
    excess = [(op, real[(size, op)] - ghost[(size, op)]) for op in makers]
    sign = 1 if balance > 0 else -1
    candidates: list[tuple[bool, Side, str, int]] = []
    for op, count in excess:
        if count * sign <= 0:
            continue
        # One too many on this side, or one too few on the other: a block that came here or went there.
        mine = real[(size, op)] * sign > 0
        side: Side = "real" if mine else "ghost"
        known = any(choice.makes(side, op, size) for choice in choices)
        candidates.append((not known, side, op, abs(count)))
    left = abs(balance)
    for _, side, op, count in sorted(candidates):
        taken = min(left, count)
        if taken:
            yield side, op, taken * (sign if side == "real" else -sign)
        left -= taken
