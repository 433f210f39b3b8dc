"""The Trace: what one rank launches, in program order. Knows nothing of any machine.

Three tables and a header. `instructions` is the program: one row per launched operation, allocation, free, event, wait or
synchronisation. `operands` says which storages each operation reads and writes. `storages` says what each block of memory is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SCHEMA: Final = 2

# What an instruction can be. Order is the code that is stored: append only.
KINDS: Final = (
    "kernel",  # runs on the device
    "view",  # new name for old bytes, or an empty allocation: host time alone
    "copy_h2d",  # host to device
    "copy_d2h",  # device to host
    "collective",  # among ranks
    "host",  # runs on the host's cores
    "alloc",  # target: storage
    "free",  # target: storage
    "record",  # target: event, on stream
    "wait",  # stream waits for event `target`
    "sync",  # the host waits for the device (target: stream, -1 all)
    "record_stream",  # target: storage is in use on stream
    "empty_cache",  # the caching allocator gives back what is unused
    "workspace",  # a library's first use on this stream: it takes a workspace of the machine's size
)
KIND: Final = {name: code for code, name in enumerate(KINDS)}

PLACES: Final = ("gpu", "host", "pinned", "nvme", "managed")  # managed: cudaMallocManaged, on the GPU while there is room
PLACE: Final = {name: code for code, name in enumerate(PLACES)}

LAYOUTS: Final = ("contiguous", "permuted", "other")  # permuted: dense, in another order; other: gaps or broadcast dimensions
LAYOUT: Final = {name: code for code, name in enumerate(LAYOUTS)}

CATEGORIES: Final = ("weights", "gradients", "optimizer", "activations", "logits", "communication", "temporaries", "workspace")
CATEGORY: Final = {name: code for code, name in enumerate(CATEGORIES)}

PHASES: Final = ("load", "prepare", "data", "forward", "backward", "optimizer", "other", "save")
PHASE: Final = {name: code for code, name in enumerate(PHASES)}

# Column -> numpy type. Codes index the tuples above or the header's string tables.
INSTRUCTIONS: Final[dict[str, Any]] = {
    "kind": np.int8,
    "op": np.int32,  # header.ops
    "stream": np.int16,
    "phase": np.int8,
    "step": np.int16,  # -1: before the first step
    "micro": np.int16,
    "module": np.int32,  # header.modules: path of the module whose forward made this, '' for none
    "line": np.int32,  # header.lines: file.py:line of the model code
    "target": np.int64,
    "nbytes": np.int64,  # of alloc, free, copy, collective (per rank, as the operation counts)
    "flops": np.float64,
    "ranks": np.int32,  # size of a collective's group, else 0
    "flag": np.int8,  # 1: attention is causal, a copy does not block the host, a collective is asynchronous; 2 more: attention drops scores
}
OPERANDS: Final[dict[str, Any]] = {
    "instruction": np.int32,
    "write": np.int8,  # 0 read, 1 written
    "storage": np.int32,
    "nbytes": np.int64,  # touched: broadcast dimensions count once
    "shape": np.int32,  # header.shapes: 'bf16[4,512,4096]'
    "offset": np.int64,  # first byte touched, from the storage's start
    "layout": np.int8,  # index into LAYOUTS
}
STORAGES: Final[dict[str, Any]] = {
    "place": np.int8,
    "nbytes": np.int64,  # as asked for, unrounded
    "category": np.int8,
    "module": np.int32,
    "line": np.int32,
    "op": np.int32,  # that made it
}

Column = npt.NDArray[Any]


@dataclass(frozen=True)
class Header:
    """What the Trace is of, and its string tables."""

    job: dict[str, Any]
    versions: dict[str, str]
    rank: int
    ranks: int
    ranks_per_node: int
    steps: int
    """Optimizer steps captured."""
    micro_steps: int
    """Micro-steps captured in each step."""
    repeat: int
    """How often the middle micro-step of a step really happens: accumulation beyond what was captured repeats it."""
    parameters: int
    """Parameters of the model, all ranks together."""
    trained: int
    """Of these, how many train."""
    ops: tuple[str, ...]
    modules: tuple[str, ...]
    lines: tuple[str, ...]
    shapes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What was modelled rather than run, in words."""
    schema: int = SCHEMA


@dataclass(frozen=True)
class Trace:
    """A captured program. Columns are numpy arrays by name, as `INSTRUCTIONS`, `OPERANDS` and `STORAGES` list them."""

    header: Header
    instructions: dict[str, Column]
    operands: dict[str, Column]
    storages: dict[str, Column]
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.instructions["kind"])

    def select(self, *kinds: str) -> npt.NDArray[np.int64]:
        """Row numbers of the instructions of these kinds, in program order."""
        return np.flatnonzero(np.isin(self.instructions["kind"], [KIND[kind] for kind in kinds]))

    def ops(self, rows: npt.NDArray[np.int64]) -> list[str]:
        """Operator names of `rows`."""
        return [self.header.ops[code] for code in self.instructions["op"][rows]]


def as_table(columns: dict[str, Column]) -> pa.Table:
    """Columns as an Arrow table."""
    return pa.table({name: pa.array(column) for name, column in columns.items()})
