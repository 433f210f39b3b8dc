"""The last captured optimizer step of a Trace as a program that can be priced on any machine: what the host launches, in order.

Machine-independent, and made once: allocations are left out, runs of views are folded into the launch that follows them, and each
distinct kernel stands once in a table. Sizes are functions of the row length: two captures of the same Job at two lengths fix them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.embedding import GATHERS
from membound.cost.pcie import BUFFERED
from membound.cost.softmax import UNREAD
from membound.replay.knots import Knots
from membound.replay.operands import Operands
from membound.replay.tying import tied
from membound.trace.schema import KIND, PHASE, PLACE, Trace

Column = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

KEPT: Final = ("kernel", "copy_h2d", "copy_d2h", "collective", "host", "record", "wait", "sync")

# DistributedDataParallel's default bucket_cap_mb, MiB (torch/nn/parallel/distributed.py): gradients are all-reduced in buckets of this size,
# each as soon as backward has filled it. The ghost captures them as one.
_BUCKET: Final = 25 << 20

# Operators that ask the GPU how many there are of something, and wait for its answer: nms of what it keeps, pooling of each level's regions
# (membound/programs/vision_operators.py). After each parameter's step bitsandbytes waits for the GPU (its optim/optimizer.py, sync_gpu).
_WAITED: Final = frozenset(
    {
        "membound.nms", "membound.roi_align", "membound.roi_align_backward",
        "bitsandbytes.optimizer_update_8bit_blockwise", "bitsandbytes.optimizer_update_32bit",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """Columns of one entry per item [n]; `operands` of one entry per operand of an item."""

    trace: Trace
    row: Column
    """Instruction of the Trace."""
    kind: Column
    stream: Column
    phase: Column
    micro: Column
    """Number of the captured micro-step, from 0; the optimizer's items carry the last one's."""
    target: Column
    ranks: Column
    flag: Column
    views: Column
    """Views, empty allocations and the like that the host makes before this item."""
    modules: Column
    """Times between the item before and this one that another module's operations begin: a call, or the return to the module around it."""
    entered: Column
    """Those of them that are calls."""
    tensors: Column
    """Tensors that the operation gets and makes: what a multi-tensor launch costs grows with them."""
    detached: npt.NDArray[np.bool_]
    """Collectives that nobody waits for before the phase ends: DDP's buckets."""
    operands: Operands
    lengths: tuple[int, int]
    """Row lengths of the two captures, tokens; equal where there is but one."""
    flops: tuple[Floats, Floats]
    """Operations of each item in the two captures."""
    moved: tuple[Column, Column]
    """Bytes of copies and collectives in the two captures."""

    def __len__(self) -> int:
        return len(self.row)

    @functools.cached_property
    def items(self) -> list[tuple[int, int, int, int, bool]]:
        """Kind, stream, target, flag and whether nobody waits for it, item by item: what a walk over them reads."""
        return list(zip(*(column.tolist() for column in (self.kind, self.stream, self.target, self.flag, self.detached)), strict=True))

    @functools.cached_property
    def waited(self) -> npt.NDArray[np.bool_]:
        """Whether the host waits within the item for what it launches, [n]."""
        named = np.array([name.rpartition(".")[0] in _WAITED for name in self.trace.header.ops], np.bool_)
        return np.asarray(named[self.op], np.bool_)

    @functools.cached_property
    def segments(self) -> Column:
        """First item of each phase of each captured micro-step."""
        key = self.micro * 64 + self.phase
        return np.flatnonzero(np.diff(key, prepend=key[0] - 1 if len(key) else 0)).astype(np.int64)

    @functools.cached_property
    def knots(self) -> Knots:
        """The moments that others hang on."""
        return tied(self)

    @property
    def op(self) -> Column:
        """Operator of each item, index into the Trace's header."""
        return self.trace.instructions["op"][self.row].astype(np.int64)

    def ops(self) -> list[str]:
        """Operator names, item by item."""
        names = self.trace.header.ops
        return [names[code] for code in self.op]

    def flops_at(self, length: int) -> Floats:
        """Operations of each item where rows have `length` tokens: none, some per token, and some per pair of tokens."""
        return between(self.flops, self.lengths, length)

    def moved_at(self, length: int) -> Floats:
        """Bytes of copies and collectives where rows have `length` tokens."""
        return between((self.moved[0].astype(np.float64), self.moved[1].astype(np.float64)), self.lengths, length)


def compiled(trace: Trace, other: Trace | None = None) -> Program:
    """The program of `trace`. `other` is a capture of the same Job with shorter rows; without it sizes stay as they are.

    Where the two are not the same program, that of `other` stands for rows of all lengths: they are as long as a usual micro-batch, and the mean over
    all is nearer to it than to the longest row.
    """
    rows = _rows(trace)
    partner = None if other is None else _aligned(trace, rows, other)
    if other is not None and partner is None:
        return compiled(other)
    instructions = trace.instructions
    take = {name: instructions[name][rows].astype(np.int64) for name in ("kind", "stream", "phase", "micro", "target", "ranks", "flag", "nbytes")}
    views, modules, entered = _between_items(trace, rows)
    flops = instructions["flops"][rows]
    if other is None or partner is None:
        lengths, far = (row_length(trace), row_length(trace)), (flops, take["nbytes"])
    else:
        lengths = row_length(trace), row_length(other)
        far = other.instructions["flops"][partner], other.instructions["nbytes"][partner].astype(np.int64)
    operands = Operands.of(trace, rows, other, partner, lengths).gathered(_named(trace, rows, GATHERS), _named(trace, rows, UNREAD))
    detached = np.zeros(len(rows), np.bool_)
    flags = np.where(_held(operands, take["kind"], take["nbytes"]), 0, take["flag"])
    program = Program(
        trace, rows, take["kind"], take["stream"], take["phase"], take["micro"], take["target"], take["ranks"], flags, views, modules, entered,
        operands.count(len(rows)), detached, operands, lengths, (flops, far[0]), (take["nbytes"], far[1]),
    )  # fmt: skip
    return _bucketed(program) if trace.header.job.get("recipe", {}).get("engine") == "ddp" else program


def _held(operands: Operands, kind: Column, nbytes: Column) -> npt.NDArray[np.bool_]:
    """Copies to the GPU that hold the host although they are asked not to: of more ordinary memory than the driver's own buffers take."""
    ordinary = np.bincount(operands.item, operands.place[operands.storage] == PLACE["host"], len(kind)) > 0
    return np.asarray((kind == KIND["copy_h2d"]) & ordinary & (nbytes > BUFFERED), np.bool_)


def _named(trace: Trace, rows: Column, operators: frozenset[str]) -> npt.NDArray[np.bool_]:
    """Which of `rows` are of these operators."""
    names = np.array([name.rpartition(".")[0] in operators for name in trace.header.ops])
    return np.asarray(names[trace.instructions["op"][rows]], np.bool_)


def row_length(trace: Trace) -> int:
    """Tokens of the longest row that was captured."""
    data = trace.header.job.get("data", {})
    return int(data.get("seq_len") or data.get("max_length") or 512)


def _rows(trace: Trace) -> Column:
    """Instructions of the last optimizer step that take time."""
    instructions = trace.instructions
    kept = np.isin(instructions["kind"], [KIND[name] for name in KEPT])
    return np.flatnonzero(kept & (instructions["step"] == trace.header.steps - 1) & (instructions["phase"] != PHASE["save"]))


def _aligned(trace: Trace, rows: Column, other: Trace) -> Column | None:
    """The instructions of `other` that answer to `rows`, or None if the two are not the same program."""
    partner = _rows(other)
    if len(partner) != len(rows):
        return None
    for name in ("kind", "stream", "phase", "micro"):
        if not np.array_equal(trace.instructions[name][rows], other.instructions[name][partner]):
            return None
    here, there = trace.header.ops, other.header.ops
    codes = {text: code for code, text in enumerate(here)}
    translated = np.array([codes.get(text, -1) for text in there])[other.instructions["op"][partner]]
    return partner if np.array_equal(translated, trace.instructions["op"][rows]) else None


def _between_items(trace: Trace, rows: Column) -> tuple[Column, Column, Column]:
    """Views, beginnings of another module, and those of them that are calls, from each item's predecessor up to it."""
    instructions = trace.instructions
    if not len(rows):
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    first = int(rows[0])
    view = instructions["kind"] == KIND["view"]
    launched = view | np.isin(instructions["kind"], [KIND[name] for name in ("kernel", "collective", "copy_h2d", "copy_d2h")])
    inside = launched & np.isin(instructions["phase"], [PHASE["forward"], PHASE["backward"]])
    module = instructions["module"]
    changed = np.zeros(len(module), np.bool_)
    at = np.flatnonzero(inside)
    changed[at[1:]] = module[at[1:]] != module[at[:-1]]
    entered = changed.copy()
    entered[at[1:]] &= ~_returns(trace.header.modules, module[at[:-1]], module[at[1:]])
    counts = []
    for what in (view, changed, entered):
        total = np.concatenate([[0], np.cumsum(what, dtype=np.int64)])
        ends = total[rows + 1]
        counts.append(np.diff(ends, prepend=total[first]))
    return counts[0], counts[1], counts[2]


def _returns(paths: Sequence[str], before: Column, after: Column) -> npt.NDArray[np.bool_]:
    """Which steps from one module to another lead out to a module around it; of modules by their index into `paths`."""
    pairs, place = np.unique(np.stack([before, after]), axis=1, return_inverse=True)
    outward = [not paths[new] or paths[old].startswith(f"{paths[new]}.") for old, new in pairs.T]
    return np.array(outward, np.bool_)[place.ravel()]


def between(pair: tuple[Floats, Floats], lengths: tuple[int, int], length: int) -> Floats:
    """Quantities at `length`, [n], from their values at two lengths, [n] each.

    What is alike at both stays; else it is a T + b T^2, both of them not negative.
    """
    near, far = pair
    a, b = lengths
    if a == b or length == a:
        return near
    if length == b:
        return far
    slope_near, slope_far = near / a, far / b
    quadratic = (slope_near - slope_far) / (a - b)
    linear = slope_near - quadratic * a
    scaled = linear * length + quadratic * length**2
    # Constant plus linear where the two lines do not meet in the origin: some tokens, or rows, that do not grow.
    straight = near + (far - near) * (length - a) / (b - a)
    good = (linear >= -1e-9 * np.abs(slope_near)) & (quadratic >= -1e-9 * np.abs(slope_near) / max(a, b))
    return np.where(near == far, near, np.where(good, scaled, np.maximum(straight, 0.0)))


def _bucketed(program: Program) -> Program:
    """DDP's gradients all-reduced in buckets, spread over the backward that fills them, instead of all at its end."""
    wanted = (program.kind == KIND["collective"]) & (program.phase == PHASE["backward"])
    found = np.flatnonzero(wanted)
    if len(found) != 1:
        return replace(program, detached=wanted)
    at = int(found[0])
    nbytes = int(program.moved[0][at])
    count = max(1, -(-nbytes // _BUCKET))
    backward = np.flatnonzero((program.phase == PHASE["backward"]) & (program.micro == program.micro[at]) & (program.kind == KIND["kernel"]))
    places = backward[np.linspace(0, len(backward) - 1, count + 1).astype(np.int64)[1:]] if len(backward) > count else np.full(count, at)
    order = np.insert(np.arange(len(program)), places + 1, at)
    order = np.delete(order, np.flatnonzero(order == at)[-1]) if count else order
    copies = order == at
    share = np.where(copies, 1.0 / count, 1.0)
    columns = {name: getattr(program, name)[order] for name in ("row", "kind", "stream", "phase", "micro", "target", "ranks", "flag", "tensors")}
    columns |= {name: np.where(copies, 0, getattr(program, name)[order]) for name in ("views", "modules", "entered")}
    moved = tuple((each[order] * share).astype(np.int64) for each in program.moved)
    flops = tuple(each[order] for each in program.flops)
    return replace(
        program, **columns, detached=copies, operands=program.operands.reordered(order),
        moved=(moved[0], moved[1]), flops=(flops[0], flops[1]),
    )  # fmt: skip
