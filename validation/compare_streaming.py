"""Compare the laws of all kernels but matmuls and attention with what measure_kernels.py measured on a GPU of the catalogue.

    python validation/compare_streaming.py GPU KERNELS.csv ... [--worst N] [--markdown]     GPU as in `membound catalogue machines`, such as h100-sxm

What is larger than the L2 is compared warm, called again and again: all of it comes from HBM. What is smaller is compared cold, once after a flush
that leaves the L2 full of lines to be written back: every byte comes from HBM and pushes such a line out; less what an empty pair of events takes.
Of what autograd launches only warm times count, where what fits half the L2 comes from there: in the cold ones the host is late.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from membound.cost.law import Kernels, Priced, Shape
from membound.cost.laws import LAWS, law_of
from membound.spec import catalogue
from membound.spec.machine import Gpu

Row = dict[str, str]
FAMILIES = (
    "pointwise", "copy", "reduction", "norm", "softmax", "loss", "embedding", "indexing", "optimizer", "quantised", "convolution", "recurrent"
)  # fmt: skip
# Timed through torch.autograd.grad, whose host work an event pair around one call sees.
AUTOGRAD = (
    "aten.convolution_backward", "aten.cudnn_batch_norm_backward", "aten.native_layer_norm_backward", "aten.nll_loss_backward", "aten._cudnn_rnn"
)  # fmt: skip
# Copies within the GPU stand in the file under a name of their own.
OPERATORS = {
    "copy_d2d": "aten.copy_.default", "bitsandbytes.dequantize_4bit": "bitsandbytes.dequantize_4bit.default",
    "aten._fused_rms_norm": "aten._fused_rms_norm.default", "AdamW.step fused": "aten._fused_adamw_.default"
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """An operator as a Trace would have it."""

    op: str
    reads: tuple[Shape, ...]
    writes: tuple[Shape, ...]
    even: bool = True


@dataclass(frozen=True)
class Found:
    """A row with its predicted and measured seconds, and how the L2 stood."""

    row: Row
    how: str
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        return self.predicted / self.measured


def call(row: Row) -> Call | None:
    """What the operator of `row` reads and writes; None for sequences of operators and what the laws here do not price."""
    op = OPERATORS.get(row["op"], row["op"])
    if row["family"] not in FAMILIES or not op.startswith(("aten.", "bitsandbytes.dequantize_4bit.")) or "+aten" in op or "pageable" in row["notes"]:
        return None
    make = {
        "pointwise": _pointwise, "copy": _pointwise, "reduction": _reduction, "norm": _norm, "softmax": _rows, "loss": _loss,
        "embedding": _embedding, "indexing": _indexing, "optimizer": _lists, "quantised": _quantised,
        "convolution": _convolution, "recurrent": _recurrent,
    }  # fmt: skip
    return make[row["family"]](op, row)


def _sizes(row: Row) -> list[int]:
    return [int(size) for size in row["shapes"].split(",")]


def _pointwise(op: str, row: Row) -> Call:
    kinds, dims = row["dtype"].split("+"), tuple(_sizes(row))
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
    rows, columns = _sizes(row)
    left = {"rows": (rows, 1), "columns": (columns,), "whole": ()}[row["notes"].split()[0]]
    return Call(op, ((row["dtype"], (rows, columns)),), ((row["dtype"], left),), even=False)


def _norm(op: str, row: Row) -> Call:
    dims = tuple(_sizes(row))
    if "batch_norm" in op:
        dims = (dims[0], dims[1], dims[2], dims[2])
    whole: Shape = (row["dtype"], dims)
    weight: Shape = ("float32" if "batch" in op else row["dtype"], dims[1:2])
    return Call(op, (whole, whole, weight) if "backward" in op else (whole, weight), (whole, weight, weight), even=False)


def _rows(op: str, row: Row) -> Call:
    whole: Shape = (row["dtype"], tuple(_sizes(row)))
    return Call(op, (whole, whole) if "backward" in op else (whole,), (whole,))


def _loss(op: str, row: Row) -> Call:
    whole: Shape = (row["dtype"], tuple(_sizes(row)))
    labels: Shape = ("int64", whole[1][:1])
    if "nll" in op:
        return Call(op, (whole, labels), (whole,) if "backward" in op else ((row["dtype"], ()),), even=False)
    return _rows(op, row)


def _embedding(op: str, row: Row) -> Call:
    rows, width, tokens = _sizes(row)
    table, taken, ids = (row["dtype"], (rows, width)), (row["dtype"], (tokens, width)), ("int64", (tokens,))
    return Call(op, (taken, ids), (table,), even=False) if "backward" in op else Call(op, (table, ids), (taken,), even=False)


def _indexing(op: str, row: Row) -> Call:
    dims = tuple(_sizes(row))
    whole: Shape = (row["dtype"], dims)
    if op.startswith(("aten.sort", "aten.topk", "aten.cumsum")):
        left = (dims[0], 2) if "topk" in op else dims
        return Call(op, (whole,), ((row["dtype"], left),) if "cumsum" in op else ((row["dtype"], left), ("int64", left)), even=False)
    ids: Shape = ("int64", dims[:1] if "rows" in row["notes"] else dims)
    return Call(op, (whole, ids) if op.startswith(("aten.index.", "aten.gather")) else (whole, ids, whole), (whole,), even=False)


# Lists that each operator reads, itself included.
_LISTS = {"add_.List": 2, "lerp_": 2, "addcmul_": 3, "addcdiv_": 3}


def _lists(op: str, row: Row) -> Call:
    count, each = (int(part) for part in row["shapes"].split("x"))
    one: Shape = (row["dtype"], (each,))
    if "_fused_" in op:
        return Call(op, (*(one,) * 4 * count, *(("float32", ()),) * count), (*(one,) * 3 * count, *(("float32", ()),) * count))
    lists = next((number for name, number in _LISTS.items() if name in op), 1)
    out: Shape = (row["dtype"], ()) if "norm" in op else one
    return Call(op, (one,) * lists * count, (out,) * count)


def _quantised(op: str, row: Row) -> Call:
    dims = tuple(_sizes(row))
    return Call(op, (("uint8", (dims[0] * dims[1] // 2, 1)),), (("bfloat16", dims),), even=False)


def _convolution(op: str, row: Row) -> Call:
    batch, inside, out, side, kernel, stride = _sizes(row)
    small = -(-side // stride)
    x, w, y = (
        (row["dtype"], dims) for dims in ((batch, inside, side, side), (out, inside, kernel, kernel), (batch, out, small, small))
    )  # fmt: skip
    return Call(op, (y, x, w), (x, w)) if "backward" in op else Call(op, (x, w), (y,))


def _recurrent(op: str, row: Row) -> Call:
    batch, tokens, width, layers = _sizes(row)
    states: Shape = (row["dtype"], (batch, tokens, width))
    weights: tuple[Shape, ...] = ((row["dtype"], (4 * width, width)), (row["dtype"], (4 * width, width))) * layers
    hidden: Shape = (row["dtype"], (layers, batch, width))
    back = (states,) if "backward" in op else ()
    return Call(op, (states, *weights, hidden, hidden, *back), (states, *(weights if back else ())))


def priced(one: Call, row: Row, gpu: Gpu, cold: bool) -> float:
    """Seconds by the law that knows the operator, with a cold L2 or one that has seen the operands before."""
    touched, written = float(row["bytes"]), _written(one)
    if cold:
        # Every byte that comes in pushes a line of the flush out, until what the L2 holds of those is gone.
        read, back = max(touched - written, 0.0), max(min(touched, gpu.l2 / 2), written)
    else:
        missed = min(max(2 * touched / gpu.l2 - 1, 0.0), 1.0)
        read, back = missed * max(touched - written, 0.0), missed * min(written, touched)
    numbers = (np.array([value]) for value in (float(row["flops"]), read, back, touched))
    kernels = Kernels((one.op,), (one.reads,), (one.writes,), *numbers, even=np.array([one.even]))
    found: Priced = LAWS[law_of(one.op)].price(kernels, gpu)
    return float(found.seconds[0])


def _written(one: Call) -> float:
    size = {"bfloat16": 2, "float32": 4, "int64": 8, "uint8": 1, "bool": 1}
    return float(sum(size[dtype] * np.prod(dims, dtype=np.float64) for dtype, dims in one.writes))


def read(file: Path) -> list[Row]:
    with file.open(newline="") as opened:
        return [row for row in csv.DictReader(opened) if row["seconds_warm"] and row["bytes"]]


def compare(files: list[Path], gpu: Gpu) -> list[Found]:
    """All rows that a law here prices."""
    rows = [row for file in files for row in read(file)]
    empty = next(float(row["seconds_cold"]) for row in rows if row["op"] == "nothing")
    found = []
    for row in rows:
        one = call(row)
        # A short list's step is as long as the host takes for it.
        if one is None or (row["op"] == "AdamW.step fused" and int(row["shapes"].split("x")[0]) > 8):
            continue
        if float(row["bytes"]) > gpu.l2 or row["op"].startswith(AUTOGRAD):
            found.append(Found(row, "warm", priced(one, row, gpu, cold=False), float(row["seconds_warm"])))
        else:
            found.append(Found(row, "cold", priced(one, row, gpu, cold=True), float(row["seconds_cold"]) - empty))
    return found


def summary(found: list[Found]) -> list[tuple[str, int, float, float, float]]:
    """By family: rows, median and 90th percentile of the relative error, and the bias (mean of logarithms)."""
    groups: dict[str, list[Found]] = defaultdict(list)
    for each in found:
        groups[each.row["family"]].append(each)
    rows = []
    for family in FAMILIES:
        ratios = np.array([each.ratio for each in groups[family]])
        errors = np.abs(ratios - 1)
        bias = float(np.expm1(np.log(ratios).mean()))
        rows.append((family, len(ratios), float(np.median(errors)), float(np.quantile(errors, 0.9)), bias))
    return rows


def show(found: list[Found], worst: int, markdown: bool) -> None:
    form = "| {} | {} | {:.1%} | {:.1%} | {:+.1%} |" if markdown else "{:12} {:5} {:8.1%} {:8.1%} {:+8.1%}"
    if markdown:
        print("| family | rows | median error | 90th percentile | bias |\n| --- | ---: | ---: | ---: | ---: |")
    else:
        print(f"{'family':12} {'rows':>5} {'median':>8} {'90th':>8} {'bias':>8}")
    for line in summary(found):
        print(form.format(*line))
    for each in sorted(found, key=lambda each: -abs(np.log(each.ratio)))[:worst]:
        row = each.row
        times = f"{each.how} {each.measured * 1e6:.1f} us, predicted {each.predicted * 1e6:.1f} us ({each.ratio - 1:+.0%})"
        print(f"  {row['family']} {row['op']} {row['shapes']} {row['dtype']} {row['notes']}: {times}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gpu")
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--worst", type=int, default=20)
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    show(compare(asked.files, catalogue.machine(asked.gpu).gpu), asked.worst, asked.markdown)


if __name__ == "__main__":
    main()
