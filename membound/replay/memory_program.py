"""What a Trace asks of the GPU's allocator, in order: allocations, frees, and what lets deferred frees through."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from membound.cost import workspaces
from membound.spec.machine import Architecture
from membound.trace.categories import refined
from membound.trace.schema import CATEGORY, KIND, PHASE, PLACE, Trace

ALLOC, FREE, USE, RECORD, WAIT, SYNC, EMPTY = range(7)

Column = npt.NDArray[np.int64]

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

    @functools.cached_property
    def born(self) -> Column:
        """By block: the event that allocates it; the number of events where none does."""
        return self._at(ALLOC)

    @functools.cached_property
    def died(self) -> Column:
        """By block: the event that frees it; the number of events where none does."""
        return self._at(FREE)

    def _at(self, action: int) -> Column:
        events = np.flatnonzero(self.action == action)
        found = np.full(len(self.nbytes), len(self), np.int64)
        found[self.target[events]] = events
        return found

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
