"""Parts of a memory program that come again: the middle micro-step stands for more of its kind, the last optimizer step for all later ones.

A part is repeated only if it is a cycle: what is born in it dies in it, or dies in its next turn just as its predecessors die in this one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.replay.memory_program import ALLOC, FREE, USE, Column, MemoryProgram
from membound.trace.schema import Trace

Flags = npt.NDArray[np.bool_]

TURNS: Final = 2
"""Turns of a cycle that are replayed beyond the captured one: in the first the allocator meets its own leftovers, in the second it has settled."""


@dataclass(frozen=True)
class Cycle:
    """Events of a program that come several times in a row, under other names of blocks."""

    begin: int
    """First event of the captured turn."""
    length: int
    """Events of each turn."""
    turns: int
    """Turns after the captured one."""
    handed_on: tuple[Column, ...]
    """Blocks that are alive at the beginning of each turn and do not outlive it, and after the last one those that took their place, in one order."""

    def borders(self) -> list[int]:
        """Where turns begin, and where the last one ends."""
        return [self.begin + number * self.length for number in range(self.turns + 2)]


@dataclass(frozen=True)
class Repeated:
    """Further turns of a cycle, and what comes after them; the latter's blocks include the former's."""

    turns: MemoryProgram
    after: MemoryProgram
    cycle: Cycle
    names: tuple[Column, ...]
    """For each turn: what a block of the captured one is called there; by block."""

    def inner(self, cycle: Cycle) -> list[Cycle]:
        """`cycle`, which lies within the captured turn, as it comes in the others."""
        return [
            replace(cycle, begin=cycle.begin + number * self.cycle.length, handed_on=tuple(names[blocks] for blocks in cycle.handed_on))
            for number, names in enumerate(self.names, 1)
        ]


def with_middle_repeated(whole: MemoryProgram, trace: Trace, times: int) -> tuple[MemoryProgram, Flags, Cycle | None]:
    """The middle micro-step of the last step `times` times more, where it is a cycle; for each event whether it was captured; and the cycle."""
    rows = _middle(trace)
    begin, end = whole.until(rows[0]), whole.until(rows[1])
    repeated = again(whole, begin, end, times) if times > 0 and end > begin else None
    if repeated is None:
        return whole, np.ones(len(whole), np.bool_), None
    result = whole.part(0, end).joined(repeated.turns).joined(repeated.after)
    captured = np.ones(len(result), np.bool_)
    captured[end : end + len(repeated.turns)] = False
    return result, captured, repeated.cycle


def step_begins(trace: Trace) -> int:
    """Row at which the last step begins; 0 for a Trace of no step."""
    step = np.maximum.accumulate(trace.instructions["step"]) if len(trace) else np.empty(0)
    return int(np.argmax(step == trace.header.steps - 1)) if (step >= 0).any() else 0


def _middle(trace: Trace) -> tuple[int, int]:
    """Rows of the last step's middle micro-step, up to the next one's first."""
    rows = trace.instructions
    if trace.header.micro_steps < 3:
        return 0, 0
    begin = step_begins(trace)
    micro = np.where(rows["step"][begin:] >= 0, rows["micro"][begin:], -1)
    middle = trace.header.micro_steps // 2
    found = [np.flatnonzero(micro == number) for number in (middle, middle + 1)]
    if not (len(found[0]) and len(found[1])):
        return 0, 0
    return begin + int(found[0][0]), begin + int(found[1][0])


def again(whole: MemoryProgram, begin: int, end: int, times: int) -> Repeated | None:
    """The events from `begin` to `end` `times` times more, with new blocks, and then what comes after them. None if they are no cycle."""
    action, target = whole.action[begin:end], whole.target[begin:end]
    count = len(whole.nbytes)
    born = target[action == ALLOC]
    lives, dies = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    lives[born] = True
    dies[target[action == FREE]] = True
    # Numbers rise in the order of birth: in that order what stays takes the place of what it found.
    leaving, entering = np.flatnonzero(lives & ~dies), np.flatnonzero(dies & ~lives)
    if not np.array_equal(whole.nbytes[leaving], whole.nbytes[entering]):
        return None
    renamed = np.arange(count)
    turns, called = [], []
    for number in range(times):
        names = renamed.copy()
        names[entering] = renamed[leaving]
        names[born] = renamed[born] = count + number * len(born) + np.arange(len(born))
        turns.append(_renamed(action, target, names))
        called.append(names)
    grown = {name: np.concatenate([column, np.tile(column[born], times)]) for name, column in _by_block(whole).items()}
    part, after = replace(whole.part(begin, end), **grown), replace(whole.part(end, len(whole)), **grown)
    columns = {name: np.tile(getattr(part, name), times) for name in ("action", "row", "stream")}
    after = replace(after, target=_renamed(after.action, after.target, renamed))
    handed_on = (entering, leaving, *(names[leaving] for names in called))
    cycle = Cycle(begin, end - begin, times, handed_on)
    return Repeated(replace(part, target=np.concatenate(turns), **columns), after, cycle, tuple(called))


def _by_block(whole: MemoryProgram) -> dict[str, Column]:
    return {name: getattr(whole, name) for name in ("nbytes", "category", "origin")}


def _renamed(action: Column, target: Column, names: Column) -> Column:
    result = target.copy()
    of_block = (action == ALLOC) | (action == FREE) | (action == USE)
    result[of_block] = names[target[of_block]]
    return result
