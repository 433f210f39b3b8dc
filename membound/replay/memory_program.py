"""What a Trace asks of the GPU's allocator, in order: allocations, frees, and what lets deferred frees through. Repeats what was captured once.

The middle micro-step stands for more of its kind and the last optimizer step for all later ones. A part of the program is repeated only if it
is a cycle: what is born in it dies in it, or dies in its next turn just as its predecessors die in this one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from membound.cost import workspaces
from membound.spec.machine import Architecture
from membound.trace.categories import refined
from membound.trace.schema import CATEGORY, KIND, PHASE, PLACE, Trace

ALLOC, FREE, USE, RECORD, WAIT, SYNC, EMPTY = range(7)

Column = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_ACTIONS = {"alloc": ALLOC, "free": FREE, "record_stream": USE, "record": RECORD, "wait": WAIT, "sync": SYNC, "empty_cache": EMPTY}


@dataclass(frozen=True)
class MemoryProgram:
    """Columns of one entry per event, and of one entry per block."""

    action: Column
    row: Column
    """Instruction that this is, or that it goes with."""
    target: Column
    """Block of alloc, free and use; event of record and wait; stream of sync, -1 for all."""
    stream: Column
    nbytes: Column
    """By block: as asked for."""
    category: Column
    """By block."""
    origin: Column
    """By block: storage in the Trace, -1 for a workspace."""

    def __len__(self) -> int:
        return len(self.action)

    def until(self, row: int) -> int:
        """Number of events that go with instructions before `row`."""
        return int(np.searchsorted(self.row, row))

    def part(self, begin: int, end: int) -> MemoryProgram:
        """The events from `begin` up to `end`."""
        cut = slice(begin, end)
        return replace(self, action=self.action[cut], row=self.row[cut], target=self.target[cut], stream=self.stream[cut])

    def joined(self, other: MemoryProgram) -> MemoryProgram:
        """This, then `other`, whose blocks include this one's."""
        columns = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("action", "row", "target", "stream")}
        return replace(other, **columns)


def program(trace: Trace, architecture: Architecture) -> MemoryProgram:
    """The GPU's part of `trace` in its order, with the cuBLAS workspaces that a GPU of `architecture` adds."""
    rows, storages = trace.instructions, trace.storages
    held = (storages["place"] == PLACE["gpu"]) & (storages["nbytes"] > 0)
    keep = np.zeros(len(trace), np.bool_)
    blocks = trace.select("alloc", "free", "record_stream")
    keep[blocks[held[rows["target"][blocks]]]] = True
    # Without memory that other streams use no free is deferred, and streams' events change nothing.
    deferring = keep[trace.select("record_stream")].any()
    keep[trace.select("record", "wait", "sync", "empty_cache") if deferring else trace.select("empty_cache")] = True
    kept = np.flatnonzero(keep)
    actions = np.zeros(len(KIND), np.int64)
    actions[[KIND[name] for name in _ACTIONS]] = list(_ACTIONS.values())
    first = _first_products(trace)
    numbers = len(held) + np.arange(len(first))
    at = np.searchsorted(kept, first)
    return MemoryProgram(
        action=np.insert(actions[rows["kind"][kept]], at, ALLOC),
        row=np.insert(kept, at, first),
        target=np.insert(rows["target"][kept], at, numbers),
        stream=np.insert(rows["stream"][kept].astype(np.int64), at, rows["stream"][first]),
        nbytes=np.append(storages["nbytes"], np.full(len(first), workspaces.size(architecture))),
        category=np.append(refined(trace).astype(np.int64), np.full(len(first), CATEGORY["workspace"])),
        origin=np.append(np.arange(len(held)), np.full(len(first), -1)),
    )


def _first_products(trace: Trace) -> Column:
    """The first instruction of each thread and stream that needs a workspace. Backward has a thread, and so a cuBLAS handle, of its own."""
    rows = trace.instructions
    needs = np.array([workspaces.needs_workspace(op) for op in trace.header.ops], np.bool_)
    wanting = np.flatnonzero(((rows["kind"] == KIND["kernel"]) & needs[rows["op"]]) | (rows["kind"] == KIND["workspace"]))
    key = rows["stream"][wanting].astype(np.int64) * 2 + (rows["phase"][wanting] == PHASE["backward"])
    return np.sort(wanting[np.unique(key, return_index=True)[1]])


def with_middle_repeated(whole: MemoryProgram, trace: Trace, times: int) -> tuple[MemoryProgram, Flags]:
    """The middle micro-step of the last step `times` times more, where it is a cycle; and for each event whether it was captured."""
    rows = _middle(trace)
    begin, end = whole.until(rows[0]), whole.until(rows[1])
    repeated = again(whole, begin, end, times) if times > 0 and end > begin else None
    if repeated is None:
        return whole, np.ones(len(whole), np.bool_)
    turns, after = repeated
    result = whole.part(0, end).joined(turns).joined(after)
    captured = np.ones(len(result), np.bool_)
    captured[end : end + len(turns)] = False
    return result, captured


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


def again(whole: MemoryProgram, begin: int, end: int, times: int) -> tuple[MemoryProgram, MemoryProgram] | None:
    """The events from `begin` to `end` `times` times more, with new blocks, and then what comes after them. None if they are no cycle."""
    action, target = whole.action[begin:end], whole.target[begin:end]
    born, died = target[action == ALLOC], target[action == FREE]
    # Numbers rise in the order of birth: in that order what stays takes the place of what it found.
    leaving, entering = np.setdiff1d(born, died), np.setdiff1d(died, born)
    if not np.array_equal(whole.nbytes[leaving], whole.nbytes[entering]):
        return None
    renamed = np.arange(len(whole.nbytes))
    turns: list[Column] = []
    grown = whole
    for _ in range(times):
        names = renamed.copy()
        names[entering] = renamed[leaving]
        names[born] = renamed[born] = len(grown.nbytes) + np.arange(len(born))
        turns.append(_renamed(action, target, names))
        grown = replace(grown, **{name: np.append(getattr(grown, name), getattr(whole, name)[born]) for name in ("nbytes", "category", "origin")})
    part, after = grown.part(begin, end), grown.part(end, len(whole))
    columns = {name: np.tile(getattr(part, name), times) for name in ("action", "row", "stream")}
    after = replace(after, target=_renamed(after.action, after.target, renamed))
    return replace(part, target=np.concatenate(turns), **columns), after


def _renamed(action: Column, target: Column, names: Column) -> Column:
    of_block = np.isin(action, [ALLOC, FREE, USE])
    result = target.copy()
    result[of_block] = names[target[of_block]]
    return result
