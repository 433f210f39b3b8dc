"""Compare the laws of matmuls and attention with kernels that measure_kernels.py measured on a GPU of the catalogue.

    python validation/compare_kernels.py KERNELS.csv GPU [--worst N]     GPU as in `membound catalogue machines`, such as h100-sxm

Predictions have all operands come from HBM. Prints by operator and layout the median relative error and the bias (predicted over measured, mean of
logarithms), beside cold times (less what an empty pair of events takes; a cold L2 is full of lines to be written back, and the host may be late) and
warm times (what fits the L2 comes from there). A training step lies between.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from membound.spec import catalogue
from membound.spec.machine import Gpu
from membound.study.calibration.calls import Row
from membound.study.calibration.products import predicted

# Row; predicted, cold and warm seconds.
Found = tuple[Row, float, float, float]


def compare(file: Path, gpu: Gpu) -> list[Found]:
    with file.open(newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if row["seconds_cold"]]
    empty = min((float(row["seconds_cold"]) for row in rows if row["op"] == "nothing"), default=0.0)
    found = [(row, predicted(row, gpu), float(row["seconds_cold"]) - empty, float(row["seconds_warm"])) for row in rows]
    return [(row, seconds, cold, warm) for row, seconds, cold, warm in found if seconds is not None and cold > 0]


def show(found: list[Found], worst: int) -> None:
    groups: dict[str, list[Found]] = defaultdict(list)
    for each in found:
        row = each[0]
        notes = " ".join(word for word in row["notes"].split() if word not in {"graph", "loop"})
        groups[f"{row['op']} {row['dtype']} {notes}"].append(each)
    print(f"{'operator':80} {'rows':>5} {'cold':>7} {'bias':>7} {'warm':>7} {'bias':>7}")
    for name, members in groups.items():
        cold, warm = (np.log([each[1] / each[column] for each in members]) for column in (2, 3))
        errors = [f"{np.median(np.abs(np.expm1(ratio))):7.1%} {np.expm1(ratio.mean()):+7.1%}" for ratio in (cold, warm)]
        print(f"{name:80} {len(members):5} {' '.join(errors)}")
    for row, seconds, cold, warm in sorted(found, key=lambda each: -abs(np.log(each[1] ** 2 / each[2] / each[3])))[:worst]:
        times = f"cold {cold * 1e6:.1f} us, warm {warm * 1e6:.1f} us, predicted {seconds * 1e6:.1f} us"
        print(f"  {row['op']} {row['shapes']} {row['dtype']} {row['notes']}: {times}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("gpu")
    parser.add_argument("--worst", type=int, default=20)
    asked = parser.parse_args()
    show(compare(asked.file, catalogue.machine(asked.gpu).gpu), asked.worst)


if __name__ == "__main__":
    main()
