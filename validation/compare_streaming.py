"""Compare the laws of all kernels but matmuls and attention with what measure_kernels.py measured on a GPU of the catalogue.

    python validation/compare_streaming.py GPU KERNELS.csv ... [--worst N] [--markdown]     GPU as in `membound catalogue machines`, such as h100-sxm

What is larger than the L2 is compared warm, called again and again: all of it comes from HBM. What is smaller is compared cold, once after a flush
that leaves the L2 full of lines to be written back: every byte comes from HBM and pushes such a line out; less what an empty pair of events takes.
Of what autograd launches only warm times count, where what fits half the L2 comes from there: in the cold ones the host is late.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from membound.measure.calibrate import run
from membound.spec import catalogue
from membound.spec.machine import Gpu
from membound.study.calibration import samples
from membound.study.calibration.calls import Row
from membound.study.calibration.calls import call as call

FAMILIES = (
    "pointwise", "copy", "reduction", "norm", "softmax", "loss", "embedding", "indexing", "optimizer", "quantised", "convolution", "recurrent"
)  # fmt: skip


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


def compare(files: list[Path], gpu: Gpu) -> list[Found]:
    """All rows that a law here prices."""
    rows = [row for file in files for row in run.read(file).rows]
    found = []
    for sample in samples.samples(rows, gpu):
        predicted = float(sample.law.price(sample.kernels, gpu).seconds[0])
        found.append(Found(sample.row, "cold" if sample.cold else "warm", predicted, sample.seconds))
    return found


def summary(found: list[Found]) -> list[tuple[str, int, float, float, float]]:
    """By family that was measured: rows, median and 90th percentile of the relative error, and the bias (mean of logarithms)."""
    groups: dict[str, list[Found]] = defaultdict(list)
    for each in found:
        groups[each.row["family"]].append(each)
    rows = []
    for family in (each for each in FAMILIES if groups[each]):
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
