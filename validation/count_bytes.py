"""HBM bytes of one optimizer step, kernel by kernel, by Nsight Compute: what NVML's GPM tells of the same job is held against their sum.

    python validation/count_bytes.py OUT NAME [NAME ...] [--seconds 180]      jobs of job_table.py, into OUT/counts.json
    python validation/count_bytes.py OUT NAME [NAME ...] --layers 4           the same models with so few layers, as NAME@4

The Program runs by itself under `ncu`; one step, its fourth, is profiled: each kernel alone, in one pass (the two counters fit one), caches and
clocks left as they are (`--cache-control none --clock-control none`). Copies and fills by the driver are no kernels and are not counted. Every
kernel in its order, with what it read, wrote and took alone, goes into OUT/NAME.kernels.parquet. A model of few layers has each kind of kernel
that the whole one has, in the same order, and takes a tenth of the time. Needs permission to read counters.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "validation")]

# The step that is profiled: optimizer states stand, and kernels that a first use chooses are chosen.
STEP = 3
METRICS = {"read": "dram__bytes_read.sum", "write": "dram__bytes_write.sum", "seconds": "gpu__time_duration.sum"}
# Kernels that are named one by one in the result.
NAMED = 40
COUNTS = "counts.json"
SEQUENCE = ".kernels.parquet"


class Stopped(Exception):
    """The profiled step is done: nothing after it is of interest."""


def main() -> int:
    """Profile the named jobs, or be the process that is profiled."""
    asked = _arguments()
    if asked.step:
        _profiled(asked.names[0], asked.layers)
        return 0
    out = Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    failed = [name for name in asked.names if not count(name, out, asked.seconds, asked.layers)]
    return int(bool(failed))


def count(name: str, out: Path, seconds: float, layers: int = 0) -> bool:
    """Profile one job into `out`/counts.json and its kernels beside it; whether it went well. Of `layers`, if given, instead of the model's."""
    ncu = profiler()
    if ncu is None:
        sys.exit("count_bytes: Nsight Compute's ncu is not on the PATH")
    with tempfile.TemporaryDirectory(prefix="membound-ncu-") as folder:
        log = Path(folder) / "kernels.csv"
        command = [
            ncu, "--profile-from-start", "off", "--clock-control", "none", "--cache-control", "none", "--target-processes", "application-only",
            "--metrics", ",".join(METRICS.values()), "--csv", "--page", "raw", "--print-units", "base", "--print-kernel-base", "function",
            "--log-file", str(log), sys.executable, str(Path(__file__).resolve()), str(out), name, "--step", "--layers", str(layers),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(seconds, 1.0))
            # The profiler's own last word, else the program's.
            own = [line for line in (log.read_text() if log.is_file() else "").splitlines() if line.startswith("==ERROR==")]
            why = next(iter([*own[-1:], *(done.stderr or done.stdout).strip().splitlines()[-1:]]), "ncu wrote no kernel")
            rows = list(kernels(log.read_text())) if log.is_file() else []
        except subprocess.TimeoutExpired:
            # Kernels before that are not a whole step.
            why, rows = f"ended after its time limit of {seconds:.0f} s", []
    found = summed(rows) if rows else {"failed": why}
    name = f"{name}@{layers}" if layers else name
    if rows:
        pq.write_table(pa.Table.from_pylist(rows), out / f"{name}{SEQUENCE}", compression="zstd")
    path = out / COUNTS
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, name: found}, indent=1) + "\n")
    print(f"{name:45} {_line(found)}", flush=True)
    return bool(rows)


def profiler() -> str | None:
    """Nsight Compute's command, on the PATH or where its installer puts it; None where there is none."""
    return shutil.which("ncu") or next((str(each) for each in sorted(Path("/opt/nvidia/nsight-compute").glob("*/ncu"))[-1:]), None)


def kernels(text: str) -> Iterator[dict[str, Any]]:
    """Kernels of ncu's raw page as CSV: name, bytes read and written, seconds. Lines of its own begin with `==`."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    units: dict[str, str] | None = None
    for row in csv.DictReader(lines):
        if units is None:  # the line below the head
            units = row
            continue
        with contextlib.suppress(ValueError, KeyError):
            values = {key: float(row[metric].replace(",", "")) for key, metric in METRICS.items()}
            values["seconds"] *= {"nsecond": 1e-9, "ns": 1e-9, "usecond": 1e-6, "us": 1e-6, "second": 1.0, "s": 1.0}[units[METRICS["seconds"]]]
            yield {"kernel": row["Kernel Name"], **values}


def summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals of a step, and of the kernels that move most, by name."""
    by: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0, 0.0])
    for row in rows:
        for index, value in enumerate((1, row["read"], row["write"], row["seconds"])):
            by[row["kernel"]][index] += value
    largest = sorted(by.items(), key=lambda each: -(each[1][1] + each[1][2]))[:NAMED]
    return {
        "kernels": len(rows), **{key: sum(row[key] for row in rows) for key in METRICS},
        "largest": [{"kernel": name, "count": int(n), "read": read, "write": write, "seconds": took} for name, (n, read, write, took) in largest],
    }  # fmt: skip


def _line(found: dict[str, Any]) -> str:
    if "failed" in found:
        return str(found["failed"])
    return f"{found['kernels']} kernels  {found['read'] / 1e9:.2f} GB read  {found['write'] / 1e9:.2f} GB written  {found['seconds'] * 1e3:.1f} ms"


def shallow(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """A model's configuration with so many layers."""
    names = {"num_hidden_layers": layers, "n_layer": layers, "n_layers": layers}
    changed = {key: names.get(key, value) for key, value in config.items()}
    if isinstance(changed.get("layer_types"), list):
        changed["layer_types"] = changed["layer_types"][:layers]
    return changed


def _profiled(name: str, layers: int) -> None:
    """The Program of a job on GPU 0, one step of it between the profiler's marks."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from job_table import JOBS

    from membound.measure.worker_weights import quickly
    from membound.programs import registry
    from membound.programs.world import Unwatched, World
    from membound.spec import catalogue
    from membound.spec.job import Job

    job = Job.model_validate({**JOBS[name], "recipe": dict(JOBS[name]["recipe"])})
    device = torch.device("cuda", 0)
    torch.cuda.set_device(device)

    class Watcher(Unwatched):
        """Surrounds one step by the profiler's marks, and ends all after it."""

        def phase(self, name: Any, step: int = -1, micro: int = -1) -> Any:
            if name == "load":
                return quickly(device if job.recipe.method != "qlora" else None)
            if name == "data" and (step, micro) == (STEP, 0):
                torch.cuda.synchronize()
                torch.cuda.profiler.start()
            return contextlib.nullcontext()

        def step_done(self, step: int) -> None:
            torch.cuda.synchronize()
            if step == STEP:
                torch.cuda.profiler.stop()
                raise Stopped

    world = World(device=device, watcher=Watcher())
    config = dict(catalogue.model_entry(job.model, job.allow_code).config)
    program = registry.program(job, shallow(config, layers) if layers else config)
    with contextlib.suppress(Stopped):
        program.run(world, STEP + 1, program.batches(world))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder of the result")
    parser.add_argument("names", nargs="+", metavar="NAME", help="jobs of job_table.py on one GPU")
    parser.add_argument("--seconds", type=float, default=180.0, help="time that one job may take")
    parser.add_argument("--layers", type=int, default=0, help="take so many of each model's layers")
    parser.add_argument("--step", action="store_true", help="be the process that is profiled")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
