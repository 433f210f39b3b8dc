"""The Trace's allocations as a memory snapshot that PyTorch's own viewer opens (pytorch.org/memory_viz).

Format: `torch.cuda.memory._snapshot` and its reader torch/utils/viz/MemoryViz.js (PyTorch 2.13). Times are places in the program, not microseconds.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from membound.report.arena import Arena, rounded
from membound.report.files import atomically
from membound.report.inert import inert
from membound.report.naming import when
from membound.trace.categories import refined
from membound.trace.schema import CATEGORIES, KIND, PHASES, PLACE, Trace

# Segments are whole pages of this size, as the driver maps them (CUDACachingAllocator kSmallBuffer).
_PAGE: Final = 2 << 20
# The last pickle protocol that the viewer's own reader knows.
_PROTOCOL: Final = 4

Event = dict[str, Any]


@dataclass(frozen=True)
class _Block:
    address: int
    nbytes: int
    stream: int
    frames: list[dict[str, Any]]
    category: str

    @property
    def end(self) -> int:
        return self.address + rounded(self.nbytes)


def snapshot(trace: Trace, addresses: npt.NDArray[np.int64] | None = None) -> dict[str, Any]:
    """A snapshot of device 0 after the last instruction, with every allocation and free that led there.

    `addresses` holds, for each instruction that allocates on the GPU, the address that an allocator gave it; without, each block goes where
    it fits best.
    """
    events: list[Event] = []
    live: dict[int, _Block] = {}
    seen: list[tuple[int, int, int]] = []
    for row, storage, block in _blocks(trace, addresses):
        if block is not None:
            live[storage] = block
            seen.append((block.address, block.end, block.stream))
            events.append(_event("alloc", row, block))
        elif storage in live:
            gone = live.pop(storage)
            events += [_event("free_requested", row, gone), _event("free_completed", row, gone)]
    segments = [_segment(start, end, stream, live) for start, end, stream in _ranges(seen)]
    births = [
        {"action": "segment_alloc", "addr": each["address"], "size": each["total_size"], "stream": each["stream"], "frames": [], "time_us": 0}
        for each in segments
    ]
    return {"segments": segments, "device_traces": [[*births, *events, _last(len(trace))]]}


def write(trace: Trace, path: Path, addresses: npt.NDArray[np.int64] | None = None) -> None:
    """Write the snapshot to `path`, whole or not at all. Raises `StorageError`."""
    with atomically(path) as out:
        pickle.dump(snapshot(trace, addresses), out, protocol=_PROTOCOL)


def _blocks(trace: Trace, addresses: npt.NDArray[np.int64] | None) -> Iterator[tuple[int, int, _Block | None]]:
    """Instruction, storage and, where it is an allocation, the block; GPU memory only. Storages of no bytes have no block."""
    columns, arena, frames = trace.instructions, Arena(), _Frames(trace)
    on_gpu = (trace.storages["place"] == PLACE["gpu"]) & (trace.storages["nbytes"] > 0)
    category = refined(trace)
    where: dict[int, tuple[int, int]] = {}
    for row in trace.select("alloc", "free").tolist():
        storage = int(columns["target"][row])
        if not 0 <= storage < len(on_gpu) or not on_gpu[storage]:
            continue
        stream, nbytes = int(columns["stream"][row]), int(trace.storages["nbytes"][storage])
        if columns["kind"][row] == KIND["alloc"]:
            address = arena.take(nbytes, stream) if addresses is None else int(addresses[row])
            where[storage] = (address, stream)
            yield row, storage, _Block(address, nbytes, stream, frames.of(row, storage), CATEGORIES[category[storage]])
        elif storage in where:
            address, stream = where.pop(storage)
            if addresses is None:
                arena.give_back(address, nbytes, stream)
            yield row, storage, None


class _Frames:
    """What stands for a stack: the line of model code with its operator, the module, the phase. Alike stacks are one object: a small file."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._known: dict[tuple[int, ...], list[dict[str, Any]]] = {}

    def of(self, row: int, storage: int) -> list[dict[str, Any]]:
        """Frames of the allocation at instruction `row`, innermost first."""
        columns, storages = self._trace.instructions, self._trace.storages
        code = tuple(int(storages[name][storage]) for name in ("op", "line", "module"))
        key = (*code, *(int(columns[name][row]) for name in ("phase", "step", "micro")))
        if key not in self._known:
            self._known[key] = self._frames(*key)
        return self._known[key]

    def _frames(self, op: int, line: int, module: int, phase: int, step: int, micro: int) -> list[dict[str, Any]]:
        header = self._trace.header
        file, _, number = header.lines[line].rpartition(":")
        moment = when({"phase": PHASES[phase], "step": step, "micro": micro})
        return [
            _frame(inert(file) or "(no model code)", inert(header.ops[op]) or "(no operator)", int(number) if number.isdecimal() else 0),
            _frame("module", inert(header.modules[module]) or "(none)"),
            _frame("phase", moment),
        ]


def _frame(filename: str, name: str, line: int = 0) -> dict[str, Any]:
    return {"filename": filename, "line": line, "name": name}


def _event(action: str, row: int, block: _Block) -> Event:
    event = {"action": action, "addr": block.address, "size": block.nbytes, "stream": block.stream, "frames": block.frames, "time_us": row}
    return {**event, "category": block.category} if action == "alloc" else event


def _last(instructions: int) -> Event:
    # The viewer colours by category, and stops with an error unless one of them is 'unknown'.
    return {"action": "snapshot", "addr": 0, "size": 0, "stream": 0, "frames": [], "time_us": instructions, "category": "unknown"}


def _ranges(seen: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The memory that blocks ever covered, as whole pages: start, end, stream. Neighbours of one stream are one segment."""
    found: list[tuple[int, int, int]] = []
    for start, end, stream in sorted({(start // _PAGE * _PAGE, -(-end // _PAGE) * _PAGE, stream) for start, end, stream in seen}):
        if found and start <= found[-1][1] and (stream == found[-1][2] or start < found[-1][1]):
            found[-1] = (found[-1][0], max(found[-1][1], end), found[-1][2])
        else:
            found.append((start, end, stream))
    return found


def _segment(start: int, end: int, stream: int, live: dict[int, _Block]) -> dict[str, Any]:
    inside = sorted((block for block in live.values() if start <= block.address < end), key=lambda block: block.address)
    blocks: list[dict[str, Any]] = []
    at = start
    for block in inside:
        if block.address > at:
            blocks.append(_free(at, block.address))
        state = {"address": block.address, "size": block.end - block.address, "requested_size": block.nbytes}
        blocks.append({**state, "state": "active_allocated", "frames": block.frames})
        at = block.end
    if at < end:
        blocks.append(_free(at, end))
    held, asked = (sum(block[key] for block in blocks if block["state"] == "active_allocated") for key in ("size", "requested_size"))
    return {
        "device": 0, "address": start, "total_size": end - start, "allocated_size": held, "active_size": held, "requested_size": asked,
        "stream": stream, "segment_type": "large", "segment_pool_id": (0, 0), "is_expandable": False, "frames": [], "blocks": blocks,
    }  # fmt: skip


def _free(start: int, end: int) -> dict[str, Any]:
    return {"address": start, "size": end - start, "requested_size": 0, "state": "inactive", "frames": []}
