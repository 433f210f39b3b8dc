"""Rows of measured kernels as operators of a Trace: what each reads and writes (their columns: membound/measure/calibrate/run.py)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from membound.cost.law import Shape

Row = Mapping[str, str]
# What stands in the rows under a name of its own.
_OPERATORS: Final = {
    "copy_d2d": "aten.copy_.default", "bitsandbytes.dequantize_4bit": "bitsandbytes.dequantize_4bit.default",
    "aten._fused_rms_norm": "aten._fused_rms_norm.default", "AdamW.step fused": "aten._fused_adamw_.default",
}  # fmt: skip
# Tensors of a fused step from which its host takes longer than its kernels.
_MANY: Final = 8


@dataclass(frozen=True)
class Call:
    """An operator as a Trace would have it."""

    op: str
    reads: tuple[Shape, ...]
    writes: tuple[Shape, ...]
    even: bool = True


def number(row: Row, column: str) -> float | None:
    """A finite positive number of a row; None where there is none."""
    try:
        value = float(row[column])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None


def call(row: Row) -> Call | None:
    """What the operator of `row` reads and writes; None for rows without times, sequences of operators, and what has laws of another kind."""
    op = _OPERATORS.get(row["op"], row["op"])
    if row["family"] not in _MAKE or number(row, "seconds_warm") is None or number(row, "bytes") is None:
        return None
    if not op.startswith(("aten.", "bitsandbytes.dequantize_4bit.")) or "+aten" in op or "pageable" in row["notes"]:
        return None
    if row["op"] == "AdamW.step fused" and int(row["shapes"].split("x")[0]) > _MANY:
        return None
    return _MAKE[row["family"]](op, row)


def sizes(row: Row) -> list[int]:
    """The row's shape: '4,512,32'."""
    return [int(size) for size in row["shapes"].split(",")]


def _pointwise(op: str, row: Row) -> Call:
    kinds, dims = row["dtype"].split("+"), tuple(sizes(row))
    first: Shape = (kinds[0], dims)
    if "row broadcast" in row["notes"]:
        return Call(op, (first, (kinds[0], dims[1:])), (first,), even=False)
    if "two halves" in row["notes"]:
        half: Shape = (kinds[0], (dims[0], dims[1] // 2))
        return Call(op, (half, half), (first,), even=False)
    if "_to_copy" in op:
        return Call(op, (first,), (({"bfloat16": "float32", "float32": "bfloat16"}[kinds[0]], dims),), even=False)
    mask: tuple[Shape, ...] = (("bool", dims),) if "dropout" in op else ()
    reads = () if "zero_" in op else tuple((kind, dims) for kind in kinds)
    rearranged = "heads" in row["notes"] or "transposed" in row["notes"]
    return Call(op, reads, (first, *mask), even=len(set(kinds)) == 1 and not rearranged and not mask)


def _reduction(op: str, row: Row) -> Call:
    rows, columns = sizes(row)
    left = {"rows": (rows, 1), "columns": (columns,), "whole": ()}[row["notes"].split()[0]]
    return Call(op, ((row["dtype"], (rows, columns)),), ((row["dtype"], left),), even=False)


def _norm(op: str, row: Row) -> Call:
    dims = tuple(sizes(row))
    if "batch_norm" in op:
        dims = (dims[0], dims[1], dims[2], dims[2])
    whole: Shape = (row["dtype"], dims)
    weight: Shape = ("float32" if "batch" in op else row["dtype"], dims[1:2])
    return Call(op, (whole, whole, weight) if "backward" in op else (whole, weight), (whole, weight, weight), even=False)


def _rows(op: str, row: Row) -> Call:
    whole: Shape = (row["dtype"], tuple(sizes(row)))
    return Call(op, (whole, whole) if "backward" in op else (whole,), (whole,))


def _loss(op: str, row: Row) -> Call:
    if "nll" not in op:
        return _rows(op, row)
    whole: Shape = (row["dtype"], tuple(sizes(row)))
    labels: Shape = ("int64", whole[1][:1])
    return Call(op, (whole, labels), (whole,) if "backward" in op else ((row["dtype"], ()),), even=False)


def _embedding(op: str, row: Row) -> Call:
    rows, width, tokens = sizes(row)
    table, taken, ids = (row["dtype"], (rows, width)), (row["dtype"], (tokens, width)), ("int64", (tokens,))
    return Call(op, (taken, ids), (table,), even=False) if "backward" in op else Call(op, (table, ids), (taken,), even=False)


def _indexing(op: str, row: Row) -> Call:
    dims = tuple(sizes(row))
    whole: Shape = (row["dtype"], dims)
    if op.startswith(("aten.sort", "aten.topk", "aten.cumsum")):
        left = (dims[0], 2) if "topk" in op else dims
        return Call(op, (whole,), ((row["dtype"], left),) if "cumsum" in op else ((row["dtype"], left), ("int64", left)), even=False)
    ids: Shape = ("int64", dims[:1] if "rows" in row["notes"] else dims)
    return Call(op, (whole, ids) if op.startswith(("aten.index.", "aten.gather")) else (whole, ids, whole), (whole,), even=False)


# Lists that each operator reads, itself included.
_LISTS: Final = {"add_.List": 2, "lerp_": 2, "addcmul_": 3, "addcdiv_": 3}


def _lists(op: str, row: Row) -> Call:
    count, each = (int(part) for part in row["shapes"].split("x"))
    one: Shape = (row["dtype"], (each,))
    if "_fused_" in op:
        return Call(op, (*(one,) * 4 * count, *(("float32", ()),) * count), (*(one,) * 3 * count, *(("float32", ()),) * count))
    lists = next((number for name, number in _LISTS.items() if name in op), 1)
    out: Shape = (row["dtype"], ()) if "norm" in op else one
    return Call(op, (one,) * lists * count, (out,) * count)


def _quantised(op: str, row: Row) -> Call:
    dims = tuple(sizes(row))
    return Call(op, (("uint8", (dims[0] * dims[1] // 2, 1)),), (("bfloat16", dims),), even=False)


def _convolution(op: str, row: Row) -> Call:
    batch, inside, out, side, kernel, stride = sizes(row)
    small = -(-side // stride)
    x, w, y = (
        (row["dtype"], dims) for dims in ((batch, inside, side, side), (out, inside, kernel, kernel), (batch, out, small, small))
    )  # fmt: skip
    return Call(op, (y, x, w), (x, w)) if "backward" in op else Call(op, (x, w), (y,))


def _recurrent(op: str, row: Row) -> Call:
    batch, tokens, width, layers = sizes(row)
    states: Shape = (row["dtype"], (batch, tokens, width))
    weights: tuple[Shape, ...] = ((row["dtype"], (4 * width, width)), (row["dtype"], (4 * width, width))) * layers
    hidden: Shape = (row["dtype"], (layers, batch, width))
    back = (states,) if "backward" in op else ()
    return Call(op, (states, *weights, hidden, hidden, *back), (states, *(weights if back else ())))


_MAKE: Final[Mapping[str, Callable[[str, Row], Call]]] = {
    "pointwise": _pointwise, "copy": _pointwise, "reduction": _reduction, "norm": _norm, "softmax": _rows, "loss": _loss,
    "embedding": _embedding, "indexing": _indexing, "optimizer": _lists, "quantised": _quantised,
    "convolution": _convolution, "recurrent": _recurrent,
}  # fmt: skip
