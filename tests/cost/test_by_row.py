"""Kernels that pay by the row, and batches of ordinary memory: the laws beside what was measured on an H200 (validation/kernels/h200-by-row.csv)."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import numpy as np
import pytest

from membound.cost import pcie
from membound.cost.law import Kernels, Shape
from membound.cost.laws import LAWS, law_of
from membound.cost.resources import Spent
from membound.spec import catalogue

MEASURED = Path(__file__).parents[2] / "validation" / "kernels" / "h200-by-row.csv"
ROWS = [row for row in csv.DictReader(MEASURED.read_text().splitlines()) if row["seconds_cold"]]
TABLE = 1_000_000
H200 = catalogue.machine("h200")


def law(row: dict[str, str]) -> float:
    """Seconds by the law, nothing in the L2."""
    rows, width = (int(each) for each in row["shapes"].split(","))
    dtype, size = row["dtype"], 4 if row["dtype"] == "float32" else 2
    x: Shape = (dtype, (rows, width))
    ids: Shape = ("int64", (rows,))
    reads, writes = {
        "aten.embedding.default": (((dtype, (TABLE, width)), ids), (x,)),
        "aten._embedding_bag.default": (((dtype, (TABLE, width)), ids, ids), (x,)),
        "aten.sum.dim_IntList": ((x,), ((dtype, (1, width)),)),
    }[row["op"]]
    read, written = np.array([float(size * rows * width)]), np.array([float(size * writes[0][1][0] * width)])
    kernels = Kernels((row["op"],), (reads,), (writes,), np.zeros(1), read, written, read + written)
    return float(LAWS[law_of(row["op"])].price(kernels, H200.gpu).seconds[0])


def off_by(row: dict[str, str]) -> float:
    """How far the law is from what was measured, with an L2 that holds the operands or one that does not, whichever is nearer."""
    found, warm, cold = law(row), float(row["seconds_warm"]), float(row["seconds_cold"])
    return max(warm / found, found / cold, 1.0) - 1


@pytest.mark.parametrize(("op", "widest", "median", "worst"), [
    ("aten.embedding.default", 1024, 0.02, 0.2), ("aten._embedding_bag.default", 128, 0.05, 0.1), ("aten.sum.dim_IntList", 256, 0.15, 0.7),
])  # fmt: skip
def test_the_law_is_what_was_measured(op: str, widest: int, median: float, worst: float) -> None:
    off = [off_by(row) for row in ROWS if row["op"] == op and int(row["shapes"].split(",")[1]) <= widest]
    assert len(off) > 2
    assert statistics.median(off) < median
    assert max(off) < worst


def test_batches_of_ordinary_memory_pass_one_core() -> None:
    off = []
    for row in ROWS:
        if row["op"] == "copy_h2d" and float(row["bytes"]) > 2 << 20:
            found: Spent = pcie.copy_seconds(np.array([float(row["bytes"])]), np.array([False]), H200, 1)
            off.append(float(found[0][0]) / float(row["seconds_warm"]) - 1)
    assert len(off) > 4
    assert max(abs(each) for each in off) < 0.2


def test_a_look_up_takes_as_long_whatever_its_width_until_bytes_count() -> None:
    narrow, wide, widest = (law({"op": "aten.embedding.default", "shapes": f"131072,{width}", "dtype": "float32"}) for width in (16, 128, 2048))
    assert wide < 1.05 * narrow
    assert widest > 3 * wide
