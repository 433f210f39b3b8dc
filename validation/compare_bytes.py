"""HBM bytes of every family of kernels in one step of a real job, as the GPU counted them, beside what the laws say.

    python validation/compare_bytes.py FOLDER [NAME@LAYERS ...]       kernels of count_bytes.py

Families are those of compare_profiles.py, sorted by the kernels' names; zeros that an operator fills and products that it makes first are kernels
of their own, and count as pointwise here, as the operator's own in what is predicted. Steps are of few layers: what a token's embedding and the
loss move weighs more than in the whole model.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "validation")]

from compare_profiles import FAMILIES, LAWS_AS  # noqa: E402
from count_bytes import SEQUENCE, shallow  # noqa: E402
from job_table import JOBS  # noqa: E402

from membound.cost.laws import LAWS, law_of  # noqa: E402
from membound.spec import catalogue, jobfile  # noqa: E402
from membound.spec.job import Job  # noqa: E402
from membound.study.predicting import Predictor  # noqa: E402
from membound.trace.schema import KIND  # noqa: E402

Bytes = dict[str, list[float]]
OTHERS = "pointwise and reduction"


def main() -> int:
    """Print one table a job, and one line for all."""
    asked = _arguments()
    folder, ratios = Path(asked.folder), []
    for name in asked.names or sorted(file.name.removesuffix(SEQUENCE) for file in folder.glob(f"*{SEQUENCE}")):
        counted, predicted = counted_of(folder / f"{name}{SEQUENCE}"), predicted_of(name)
        print(f"\n{name}\n{'':28}{'read':>12}{'predicted':>12}{'written':>12}{'predicted':>12}  ratio of both")
        counted["all"], predicted["all"] = (list(np.sum(list(kinds.values()), axis=0)) for kinds in (counted, predicted))
        for family in [each for each, _ in FAMILIES if each in counted or each in predicted] + ["all"]:
            (read, written), (come, go) = counted.get(family, [0.0, 0.0]), predicted.get(family, [0.0, 0.0])
            ratio = (come + go) / (read + written) if read + written else float("nan")
            print(f"{family:28}" + "".join(f"{each / 1e9:9.2f} GB" for each in (read, come, written, go)) + f"  {ratio:.3f}")
        ratios.append(ratio)
    off = float(np.mean(np.abs(np.array(ratios) - 1)))
    print(f"\n{len(ratios)} jobs: all bytes {min(ratios):.3f} to {max(ratios):.3f} of what was counted, {off:.1%} off in the mean")
    return 0


def counted_of(file: Path) -> Bytes:
    """Bytes read and written of a step by family, as counted."""
    found: Bytes = defaultdict(lambda: [0.0, 0.0])
    for row in pq.read_table(file).to_pylist():
        family = next(each for each, pattern in FAMILIES if re.search(pattern, row["kernel"]))
        found[family][0] += row["read"]
        found[family][1] += row["write"]
    return dict(found)


def predicted_of(name: str) -> Bytes:
    """The same as the laws have it on an H200, of a job of job_table.py with so many layers."""
    job, _, layers = name.partition("@")
    written = JOBS[job]
    config = shallow(dict(catalogue.model_entry(written["model"]).config), int(layers))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(config))
        asked = jobfile.ask(Job.model_validate({**written, "recipe": dict(written["recipe"]), "model": str(file), "machine": "hgx-h200"}))
        work = Predictor().predict(asked.job, asked.machine).timing.played.work
    program = work.program
    law = np.array([law_of(each) for each in program.trace.header.ops])[program.op]
    found: Bytes = defaultdict(lambda: [0.0, 0.0])
    for number, each in enumerate(LAWS):
        chosen = (program.kind == KIND["kernel"]) & (law == number)
        for at, column in enumerate((work.read, work.written)):
            found[LAWS_AS.get(each.family, OTHERS)][at] += float(column[chosen].mean(axis=1).sum()) if chosen.any() else 0.0
    return {family: both for family, both in found.items() if any(both)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where count_bytes.py wrote")
    parser.add_argument("names", nargs="*", metavar="NAME@LAYERS", help="jobs; all that are there unless given")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
