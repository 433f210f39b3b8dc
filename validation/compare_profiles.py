"""What every family of kernels takes in one step of a real job, beside what its laws say: GPU time alone, without the host.

    python validation/compare_profiles.py FOLDER [NAME ...]       files of profile_jobs.py

Kernels are sorted by their names. Of collectives, whose kernels spin until their peers come, counts what all ranks share: from the last one's
start to the first one's end. A kernel that runs beside a collective is as long as it was then, in what is measured and in what is predicted.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "validation")]

from job_table import JOBS  # noqa: E402
from profile_jobs import SUFFIX  # noqa: E402

from membound.cost.laws import LAWS, law_of  # noqa: E402
from membound.replay.predict_time import a_step  # noqa: E402
from membound.spec import jobfile  # noqa: E402
from membound.spec.job import Job  # noqa: E402
from membound.study.predicting import Predictor  # noqa: E402
from membound.trace.schema import KIND  # noqa: E402

# By kernel name, first match counts. What PyTorch's elementwise kernels do, their names tell in part: copies, sums and casts are one family here.
FAMILIES = (
    ("collective", r"^nccl"),
    ("attention", r"sdpa|flash|fmha"),
    ("matmul", r"nvjet|gemm|cutlass|cublas|splitK|kernel_4bit|kgemm"),
    ("optimizer", r"multi_tensor_apply|adam|adafactor|Optimizer32bit|Optimizer8bit|kOptimizer|kPreconditionOptimizer"),
    ("softmax", r"[sS]oft[mM]ax|nll_loss"),
    ("copy over PCIe", r"Memcpy (HtoD|DtoH)"),
    ("embedding", r"embedding|index|gather|scatter|compute_grad_weight|DeviceRadixSort|krn_partial|sum_and_scatter"),
    ("pointwise and reduction", r"."),
)  # fmt: skip
NO_KERNELS = ("collective", "copy over PCIe")
LAWS_AS = {
    "matmul": "matmul", "batched matmul": "matmul", "quantised matmul": "matmul", "attention forward": "attention", "attention backward": "attention",
    "optimizer": "optimizer", "softmax": "softmax", "embedding": "embedding",
}  # fmt: skip


def main() -> int:
    """Print one table a job."""
    asked = _arguments()
    folder = Path(asked.folder)
    names = asked.names or sorted(file.name.removesuffix(SUFFIX) for file in folder.glob(f"*{SUFFIX}") if ".rank" not in file.name)
    for name in names:
        measured, predicted = measured_of(folder, name), predicted_of(name)
        print(f"\n{name}\n{'':28}{'measured':>10}{'predicted':>11}  ratio")
        for family in [each for each, _ in FAMILIES if each in measured or each in predicted]:
            real, told = measured.get(family, 0.0), predicted.get(family, 0.0)
            print(f"{family:28}{real * 1e3:8.2f} ms{told * 1e3:8.2f} ms  {told / real if real else float('nan'):.3f}")
        real, told = (sum(each for family, each in kinds.items() if family not in NO_KERNELS) for kinds in (measured, predicted))
        print(f"{'kernels':28}{real * 1e3:8.2f} ms{told * 1e3:8.2f} ms  {told / real:.3f}")
    return 0


def measured_of(folder: Path, name: str) -> dict[str, float]:
    """Seconds of a step by family."""
    ranks = [_activities(file) for file in sorted(folder.glob(f"{name}*{SUFFIX}"))]
    found: dict[str, float] = defaultdict(float)
    for kernel, _, length in ranks[0]:
        family = next(each for each, pattern in FAMILIES if re.search(pattern, kernel))
        if family != "collective":
            found[family] += length * 1e-9
    shared = [[row for row in rank if row[0].startswith("nccl")] for rank in ranks]
    for rows in zip(*shared, strict=False):
        found["collective"] += max(0, min(start + length for _, start, length in rows) - max(start for _, start, _ in rows)) * 1e-9
    return found


def predicted_of(name: str) -> dict[str, float]:
    """Seconds of a step by family, as the laws have it on an H200."""
    asked = jobfile.ask(Job.model_validate({**JOBS[name], "recipe": dict(JOBS[name]["recipe"]), "machine": "hgx-h200"}))
    played = Predictor().predict(asked.job, asked.machine).timing.played
    program = played.work.program
    law = np.array([law_of(each) for each in program.trace.header.ops])[program.op]
    seconds = played.prices.table[0, played.prices.index]
    found: dict[str, float] = defaultdict(float)

    def add(family: str, chosen: Any) -> None:
        if chosen.any():
            found[family] += a_step(played, np.where(chosen[:, None], seconds, 0.0))

    for number, each in enumerate(LAWS):
        add(LAWS_AS.get(each.family, "pointwise and reduction"), (program.kind == KIND["kernel"]) & (law == number))
    add("collective", program.kind == KIND["collective"])
    add("copy over PCIe", (program.kind == KIND["copy_h2d"]) | (program.kind == KIND["copy_d2h"]))
    return found


def _activities(file: Path) -> list[tuple[str, int, int]]:
    """(name without its template's head, start, length) in ns, in order of time."""
    table = pq.read_table(file, columns=["name", "stream", "start", "length"]).to_pydict()
    rows = zip(table["name"], table["stream"], table["start"], table["length"], strict=True)
    return [(name.removeprefix("void "), start, length) for name, stream, start, length in rows if stream >= 0]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where profile_jobs.py wrote")
    parser.add_argument("names", nargs="*", metavar="NAME", help="jobs; all that are there unless given")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
