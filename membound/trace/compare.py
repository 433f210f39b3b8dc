"""Holds one Trace against another, operator by operator and byte by byte: how the ghost's is held against that of a real run.

Within each phase of each micro-step the two sequences of operators are aligned by name, operands and FLOPs. Between one aligned
operator and the next, both sides must allocate and free the same numbers of bytes, so that as much is alive after each. In a real run
on the CPU host and device are one memory: all places count together. What differs is returned, each difference with the name of the
choice that accounts for it, or with none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from membound.trace.blocks import Block, Memory, Where, blocks_of
from membound.trace.choice import Choice, Launch, Side
from membound.trace.schema import PHASES, Trace


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


def compare(real: Trace, ghost: Trace, choices: Sequence[Choice]) -> Comparison:
    """Hold `ghost` against `real` from the first micro-step on."""
    left, right = blocks_of(real, "real", choices), blocks_of(ghost, "ghost", choices)
    aligned, found = 0, list[Difference]()
    for where in sorted(left.keys() | right.keys(), key=lambda at: (at[0], at[1], PHASES.index(at[2]))):
        mine, theirs = left.get(where, Block()), right.get(where, Block())
        pairs = _align(mine, theirs)
        aligned += len(pairs)
        found += _operators(where, mine, theirs, pairs, choices)
        found += _unlike_pairs(where, mine, theirs, pairs)
        found += _memory(where, mine, theirs, pairs, choices)
    return Comparison(aligned, tuple(found))


def _align(real: Block, ghost: Block) -> list[tuple[int, int]]:
    a, b = [launch.key for launch in real.launches], [launch.key for launch in ghost.launches]
    if a == b:
        return [(i, i) for i in range(len(a))]
    matches = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    return [(i + n, j + n) for i, j, size in matches for n in range(size)]


def _operators(where: Where, real: Block, ghost: Block, pairs: list[tuple[int, int]], choices: Sequence[Choice]) -> Iterator[Difference]:
    step, micro, phase = where
    sides: tuple[tuple[Side, Block, set[int]], ...] = (("real", real, {i for i, _ in pairs}), ("ghost", ghost, {j for _, j in pairs}))
    for side, block, matched in sides:
        for number, launch in enumerate(block.launches):
            if number not in matched:
                around = _other(block.launches[:number][::-1], launch.op), _other(block.launches[number + 1 :], launch.op)
                choice = next((c.name for c in choices if c.accounts_for(side, launch, *around)), "")
                yield Difference(choice, side, "operator", phase, step, micro, launch.op, launch.detail)


def _unlike_pairs(where: Where, real: Block, ghost: Block, pairs: list[tuple[int, int]]) -> Iterator[Difference]:
    """Operators that stand for one another by a choice, and are not the same."""
    step, micro, phase = where
    for i, j in pairs:
        a, b = real.launches[i], ghost.launches[j]
        if (a.op, a.detail) != (b.op, b.detail):
            yield Difference(a.choice, "both", "operator", phase, step, micro, a.op, f"{a.detail}, for {b.op} {b.detail}")


def _other(launches: list[Launch], op: str) -> str:
    """The first operator other than `op`."""
    return next((launch.op for launch in launches if launch.op != op), "")


def _memory(where: Where, real: Block, ghost: Block, pairs: list[tuple[int, int]], choices: Sequence[Choice]) -> Iterator[Difference]:
    last = (len(real.memory), len(ghost.memory))
    after = (0, 0)
    for i, j in [*((i + 1, j + 1) for i, j in pairs), last]:
        mine, theirs = _total(real.memory[after[0] : i]), _total(ghost.memory[after[1] : j])
        if mine != theirs:
            before = real.launches[i - 1].op if i <= len(real.launches) else "the end"
            yield from _unequal(where, mine, theirs, before, choices)
        after = (i, j)


def _total(parts: list[Memory]) -> Memory:
    total: Memory = Counter()
    for part in parts:
        for event, count in part.items():
            total[event] += count
    return total


def _unequal(where: Where, real: Memory, ghost: Memory, before: str, choices: Sequence[Choice]) -> Iterator[Difference]:
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


def _blamed(size: int, balance: int, real: Memory, ghost: Memory, choices: Sequence[Choice]) -> Iterator[tuple[Side, str, int]]:
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
