"""What the items of a Program read and write, with sizes as functions of the row length."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from membound.cost.dtypes import element_size
from membound.cost.law import Shape
from membound.trace.schema import LAYOUT, LAYOUTS, Trace

Column = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Operands:
    """Columns of one entry per operand, in the order of the items that they belong to."""

    item: Column
    write: Column
    storage: Column
    offset: Column
    layout: Column
    """Index into the Trace's `LAYOUTS`."""
    form: Column
    """Index into `forms`."""
    nbytes: tuple[Column, Column]
    """Bytes touched in the two captures."""
    forms: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """Type, and sizes in the two captures."""
    lengths: tuple[int, int]
    size: Column
    """Of each storage of the Trace, B."""
    place: Column
    """Of each storage of the Trace: its kind of memory."""

    @classmethod
    def of(cls, trace: Trace, rows: Column, other: Trace | None, partner: Column | None, lengths: tuple[int, int]) -> Operands:
        """Those of the instructions `rows`, with their sizes in the capture `other` at the instructions `partner`."""
        here = _Selection(trace, rows)
        there = here if other is None or partner is None else _Selection(other, partner)
        if not np.array_equal(here.item, there.item):
            there = here
        pairs = here.shape.astype(np.int64) << 32 | there.shape
        kinds, form = np.unique(pairs, return_inverse=True)
        forms = tuple(_form(here.shapes[int(p) >> 32], there.shapes[int(p) & 0xFFFFFFFF]) for p in kinds)
        storages = trace.storages
        return cls(
            here.item, here.write, here.storage, here.offset, here.layout, form.astype(np.int64), (here.nbytes, there.nbytes), forms, lengths,
            storages["nbytes"].astype(np.int64), storages["place"].astype(np.int64),
        )  # fmt: skip

    def gathered(self, items: npt.NDArray[np.bool_], unread: npt.NDArray[np.bool_]) -> Operands:
        """With no more read of any operand of these `items` than they write: a look-up touches the rows that it takes. Of those that are
        `unread`, nothing is read of what is as large as what they write.
        """
        picks, skips = items[self.item], unread[self.item]
        if not (picks | skips).any():
            return self
        both = []
        for nbytes in self.nbytes:
            written = np.bincount(self.item, np.where(self.write == 1, nbytes, 0), len(items))[self.item]
            read = np.where(picks, np.minimum(nbytes, written), np.where(skips & (nbytes >= written), 0, nbytes))
            both.append(np.where(self.write == 0, read, nbytes).astype(np.int64))
        return replace(self, nbytes=(both[0], both[1]))

    def count(self, items: int) -> Column:
        """Operands of each of so many items."""
        return np.bincount(self.item, minlength=items).astype(np.int64)

    def bounds(self, items: int) -> Column:
        """Where each item's operands begin, and where the last one's end; [items + 1]."""
        return np.searchsorted(self.item, np.arange(items + 1)).astype(np.int64)

    def reordered(self, order: Column) -> Operands:
        """Those of the items `order`, which may repeat."""
        bounds = self.bounds(int(order.max()) + 1 if len(order) else 0)
        take = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in order]) if len(order) else np.empty(0, np.int64)
        count = bounds[order + 1] - bounds[order] if len(order) else np.empty(0, np.int64)
        columns = (self.write[take], self.storage[take], self.offset[take], self.layout[take], self.form[take])
        both = self.nbytes[0][take], self.nbytes[1][take]
        return Operands(np.repeat(np.arange(len(order)), count), *columns, both, self.forms, self.lengths, self.size, self.place)

    def even(self, items: int) -> npt.NDArray[np.bool_]:
        """Whether an item's operands of more than one element are all of one type, one set of sizes and one dense layout; [items]."""
        sizes = np.array([_elements(near) for _, near, _ in self.forms], np.int64)
        many = sizes[self.form] > 1 if len(self.forms) else np.zeros(len(self.item), np.bool_)
        item, form, layout = self.item[many], self.form[many], self.layout[many]
        least, most = np.full(items, 1 << 40), np.full(items, -1)
        code = form * len(LAYOUTS) + layout
        np.minimum.at(least, item, code)
        np.maximum.at(most, item, code)
        gaps = np.bincount(item, layout == LAYOUT["other"], items) > 0
        return np.asarray((least >= most) & ~gaps, np.bool_)

    @functools.cached_property
    def itemsize(self) -> Column:
        """Bytes of one element of each form."""
        return np.array([element_size(dtype) for dtype, _, _ in self.forms], np.int64)

    def shapes_at(self, length: int) -> list[Shape]:
        """Each form where rows have `length` tokens."""
        return [(dtype, _dims(near, far, self.lengths, length)) for dtype, near, far in self.forms]

    def nbytes_at(self, length: int) -> Column:
        """Bytes touched where rows have `length` tokens: of each operand the same share of its elements as in the captures."""
        a, b = self.lengths
        if a == b or length == a:
            return self.nbytes[0]
        if length == b:
            return self.nbytes[1]
        near, far, now = (np.array([_elements(d) for d in dims], np.float64) for dims in self._sizes(length))
        share = np.where(near[self.form] > 0, self.nbytes[0] / np.maximum(near[self.form], 1.0), 0.0)
        other = np.where(far[self.form] > 0, self.nbytes[1] / np.maximum(far[self.form], 1.0), 0.0)
        # A broadcast dimension that grows makes the share fall: between the two captures, as much as they say.
        weight = (length - a) / (b - a)
        return np.rint(now[self.form] * (share + (other - share) * weight)).astype(np.int64)

    def _sizes(self, length: int) -> Iterator[list[tuple[int, ...]]]:
        yield [near for _, near, _ in self.forms]
        yield [far for _, _, far in self.forms]
        yield [_dims(near, far, self.lengths, length) for _, near, far in self.forms]


class _Selection:
    """The operands of some instructions of a Trace."""

    def __init__(self, trace: Trace, rows: Column) -> None:
        operands = trace.operands
        begin = np.searchsorted(operands["instruction"], rows)
        count = np.searchsorted(operands["instruction"], rows + 1) - begin
        self.item = np.repeat(np.arange(len(rows)), count).astype(np.int64)
        inside = np.arange(len(self.item)) - np.repeat(np.cumsum(count) - count, count)
        take = np.repeat(begin, count) + inside
        self.write = operands["write"][take].astype(np.int64)
        self.storage = operands["storage"][take].astype(np.int64)
        self.offset = operands["offset"][take].astype(np.int64)
        self.layout = operands["layout"][take].astype(np.int64)
        self.shape = operands["shape"][take].astype(np.int64)
        self.nbytes = operands["nbytes"][take].astype(np.int64)
        self.shapes = trace.header.shapes


def _form(near: str, far: str) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    dtype, here = parsed(near)
    _, there = parsed(far)
    return dtype, here, there if len(there) == len(here) else here


@functools.lru_cache(maxsize=65536)
def parsed(shape: str) -> Shape:
    """('bfloat16', (4, 512)) of 'bfloat16[4,512]'; what carries no shape has no type."""
    dtype, _, inside = shape.partition("[")
    return dtype, tuple(int(part) for part in inside.rstrip("]").split(",") if part)


def _dims(near: tuple[int, ...], far: tuple[int, ...], lengths: tuple[int, int], length: int) -> tuple[int, ...]:
    """Every size is a constant, or grows with the row length in a straight line."""
    a, b = lengths
    if a == b or near == far:
        return near
    return tuple(n if n == f else max(round(n + (f - n) * (length - a) / (b - a)), 0) for n, f in zip(near, far, strict=True))


def _elements(dims: tuple[int, ...]) -> int:
    total = 1
    for size in dims:
        total *= size
    return total
