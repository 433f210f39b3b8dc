"""A Program at given row lengths, through an L2 of a given size: each distinct kernel once, sorted by the law that prices it.

Nothing here depends on clocks, so that a sweep over them makes it once: of the GPU only its L2 and how many SMs share it count.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from membound.cost.dispatch import Attention, dispatched, prefers_cudnn
from membound.cost.l2 import effective_capacity
from membound.cost.law import Kernels, Shape
from membound.cost.laws import LAWS, law_of
from membound.cost.power import Load
from membound.replay.flows import Flows
from membound.replay.program import Program
from membound.replay.traffic import traffic
from membound.replay.transfers import Transfers
from membound.replay.walked import Memo
from membound.spec.machine import Gpu
from membound.trace.schema import KIND, LAYOUTS, PHASE

Column = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Distinct kernels that one law prices."""

    law: int
    """Index into `membound.cost.laws.LAWS`."""
    members: Column
    """Numbers of the distinct kernels, m of them."""
    kernels: Kernels
    """m x K entries: all members at the first length, then at the second, ..."""

    @functools.cached_property
    def _by_dispatch(self) -> dict[bool, Kernels]:
        return {}

    def on(self, gpu: Gpu) -> Kernels:
        """The kernels that run on `gpu`, where PyTorch takes what it prefers there."""
        preferring = prefers_cudnn(gpu)
        if preferring not in self._by_dispatch:
            self._by_dispatch[preferring] = dispatched(self.kernels, gpu)
        return self._by_dispatch[preferring]


@dataclass(frozen=True)
class Workload:
    """n items, K row lengths."""

    program: Program
    lengths: tuple[int, ...]
    index: Column
    """Number of each item's distinct kernel, -1 for what is no kernel; [n]."""
    distinct: int
    groups: tuple[Group, ...]
    read: Floats
    """HBM bytes read; [n, K]."""
    written: Floats
    """HBM bytes written; [n, K]."""
    cached: Floats
    """Bytes of kernels' operands that never leave the L2; [n, K]."""
    flops: Floats
    """[n, K]"""
    elements: Floats
    """Elements that kernels without arithmetic of their own go through one by one; [n, K]."""
    moved: Floats
    """Bytes of copies and collectives; [n, K]."""
    attention: Attention = "cudnn"
    """The newest fused attention that the software knows."""

    @functools.cached_property
    def others(self) -> Column:
        """The items that are no kernels; [m]."""
        return np.flatnonzero(self.index < 0)

    @functools.cached_property
    def transfers(self) -> Transfers:
        """What `others` ask of the links and the host."""
        return Transfers.of(self.program, self.others)

    @functools.cached_property
    def in_tensor_cores(self) -> npt.NDArray[np.bool_]:
        """Items whose first operand is of a type that tensor cores multiply by default, a packed weight being multiplied by its wide rows; [n]."""
        operands = self.program.operands
        half = np.array([dtype in {"bfloat16", "float16"} for dtype, _, _ in operands.forms], np.bool_)
        result = np.zeros(len(self.program), np.bool_)
        reads = np.flatnonzero(operands.write == 0)
        items, first = np.unique(operands.item[reads], return_index=True)
        result[items] = half[operands.form[reads[first]]]
        return result

    @functools.cached_property
    def flows(self) -> Flows:
        """What flows while they run."""
        return Flows(self)

    @functools.cached_property
    def dimm_bytes(self) -> Floats:
        """Bytes that each item moves over the DIMMs; [n, K]."""
        found, those = np.zeros(self.moved.shape), self.transfers
        at_work = (those.cores | those.drives)[:, None]
        found[self.others] = np.where(those.copies[:, None], self.moved[self.others], np.where(at_work, those.nbytes[:, None], 0.0))
        return found

    @functools.cached_property
    def amounts(self) -> Load:
        """What each distinct kernel does, all in all, in place of per second; [distinct, K]."""
        kernels = np.flatnonzero(self.index >= 0)
        at = kernels[np.unique(self.index[kernels], return_index=True)[1]]
        tensor = self.in_tensor_cores[at, None]
        flops = self.flops[at]
        by_tensor, plain = np.where(tensor, flops, 0.0), np.where(tensor, 0.0, flops)
        return Load(by_tensor, plain, self.elements[at], self.read[at], self.written[at], self.cached[at], np.zeros(flops.shape))

    @functools.cached_property
    def times(self) -> Column:
        """How often each distinct kernel is in the program; [distinct]."""
        return np.bincount(self.index[self.index >= 0], minlength=self.distinct)

    @functools.cached_property
    def phases(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Which distinct kernels belong to micro-steps, and which to the optimizer alone; [distinct] each."""
        kernels = self.index >= 0
        micro = np.zeros(self.distinct, np.bool_)
        micro[self.index[kernels & (self.program.phase != PHASE["optimizer"])]] = True
        return micro, ~micro


def workload(program: Program, lengths: tuple[int, ...], gpu: Gpu, memo: Memo | None = None) -> Workload:
    """`program` with rows of `lengths` tokens, through the L2 of `gpu`; `memo` keeps what was found there."""
    through = [traffic(program, length, effective_capacity(gpu), memo) for length in lengths]
    read = np.stack([r for r, _ in through], axis=1)
    written = np.stack([w for _, w in through], axis=1)
    flops = np.stack([program.flops_at(length) for length in lengths], axis=1)
    moved = np.stack([program.moved_at(length) for length in lengths], axis=1)
    touched = np.stack([_touched(program, length) for length in lengths], axis=1)
    is_kernel = program.kind == KIND["kernel"]
    cached = np.where(is_kernel[:, None], np.maximum(touched - read - written, 0.0), 0.0)
    kernels = np.flatnonzero(is_kernel)
    index = np.full(len(program), -1, np.int64)
    first, number = _distinct(_signatures(program)[kernels], np.concatenate([read, written], axis=1)[kernels])
    index[kernels] = number
    examples = kernels[first]
    groups = _groups(program, lengths, examples, *(each[examples].astype(np.float64) for each in (read, written, flops, touched)))
    come, go = read.astype(np.float64), written.astype(np.float64)
    for whole, more in zip((come, go), _beyond(groups, len(examples), len(lengths), gpu), strict=True):
        whole[kernels] += more[number]
    elements = np.where(is_kernel[:, None] & (flops == 0), np.stack([_elements(program, length) for length in lengths], axis=1), 0.0)
    columns = come, go, cached, flops, elements, moved
    return Workload(program, lengths, index, len(examples), groups, *columns)


def _signatures(program: Program) -> Column:
    """One number per item that two items share if they are the same operator on the same operands."""
    operands = program.operands
    draw = np.random.default_rng(0)
    forms = draw.integers(1, 1 << 62, 2 * max(len(operands.forms), 1), np.int64) | 1
    layouts = draw.integers(1, 1 << 62, len(LAYOUTS), np.int64)
    place = np.arange(len(operands.item)) - operands.bounds(len(program))[operands.item] + 1
    with np.errstate(over="ignore"):
        each = (forms[2 * operands.form + operands.write] + layouts[operands.layout]) * (place * 2 + 1)
        total = np.zeros(len(program), np.int64)
        np.add.at(total, operands.item, each)
        names = draw.integers(1, 1 << 62, len(program.trace.header.ops), np.int64)
        return total + names[program.op] + program.flag


def _distinct(signature: Column, traffic: Column) -> tuple[Column, Column]:
    """First of each kind of row, and the kind of every row."""
    rows = np.ascontiguousarray(np.column_stack([signature, traffic]))
    view = rows.view([("", rows.dtype)] * rows.shape[1]).reshape(-1)
    _, first, number = np.unique(view, return_index=True, return_inverse=True)
    return first.astype(np.int64), number.reshape(-1).astype(np.int64)


def _groups(
    program: Program, lengths: tuple[int, ...], examples: Column, read: Floats, written: Floats, flops: Floats, touched: Floats
) -> tuple[Group, ...]:  # fmt: skip
    names = program.trace.header.ops
    ops = [names[code] for code in program.op[examples]]
    evenly = program.operands.even(len(program))
    laws = np.array([law_of(op) for op in ops], np.int64)
    shapes = [_shapes(program, examples, length) for length in lengths]
    found = []
    for law in np.unique(laws):
        members = np.flatnonzero(laws == law)
        flags, even = program.flag[examples[members]], evenly[examples[members]]
        work, come, go, used = (values[members].T.reshape(-1).astype(np.float64) for values in (flops, read, written, touched))
        kernels = Kernels(
            tuple(ops[m] for m in members) * len(lengths),
            tuple(at[m][0] for at in shapes for m in members),
            tuple(at[m][1] for at in shapes for m in members),
            work, come, go, used, np.tile(flags, len(lengths)), np.tile(even, len(lengths)),
        )  # fmt: skip
        found.append(Group(int(law), members, kernels))
    return tuple(found)


def _beyond(groups: tuple[Group, ...], distinct: int, lengths: int, gpu: Gpu) -> tuple[Floats, Floats]:
    """HBM bytes that each distinct kernel reads and writes beyond its operands once; [distinct, K] each."""
    both = np.zeros((distinct, lengths)), np.zeros((distinct, lengths))
    for group in groups:
        for whole, part in zip(both, LAWS[group.law].beyond(group.kernels, gpu), strict=True):
            whole[group.members] = part.reshape(lengths, len(group.members)).T
    return both


def _shapes(program: Program, examples: Column, length: int) -> list[tuple[tuple[Shape, ...], tuple[Shape, ...]]]:
    operands = program.operands
    at = operands.shapes_at(length)
    bounds = operands.bounds(len(program))
    form, write = operands.form.tolist(), operands.write.tolist()
    known: dict[tuple[int, ...], tuple[tuple[Shape, ...], tuple[Shape, ...]]] = {}
    result = []
    for item in examples.tolist():
        span = range(int(bounds[item]), int(bounds[item + 1]))
        key = tuple(2 * form[j] + write[j] for j in span)
        if key not in known:
            known[key] = tuple(at[k // 2] for k in key if not k % 2), tuple(at[k // 2] for k in key if k % 2)
        result.append(known[key])
    return result


def _touched(program: Program, length: int) -> Floats:
    return np.bincount(program.operands.item, program.operands.nbytes_at(length), len(program)).astype(np.float64)


def _elements(program: Program, length: int) -> Floats:
    """Elements written by each item, or read of its largest operand where that is more, as a reduction does; of a table only what is touched."""
    operands = program.operands
    whole = np.array([math.prod(dims) for _, dims in operands.shapes_at(length)] or [0], np.float64)[operands.form]
    touched = operands.nbytes_at(length) / np.append(operands.itemsize, 1)[operands.form]
    sizes = np.minimum(whole, touched)
    written = np.bincount(operands.item, np.where(operands.write == 1, sizes, 0.0), len(program))
    most = np.zeros(len(program))
    np.maximum.at(most, operands.item, np.where(operands.write == 0, sizes, 0.0))
    return np.maximum(written, most)
