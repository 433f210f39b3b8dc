"""Measure the kernels of fine-tuning on the GPU of this machine, some four minutes; needs PyTorch alone.

    python validation/measure_kernels.py OUT.csv [--only FAMILY,...] [--seconds 240] [--again]     on a CUDA machine
    python validation/measure_kernels.py OUT.csv --dry                                             on the processor, tiny, to see that it runs

Writes one row for each kernel (columns: kernel_families/bench.py) and, beside it, OUT.json with the hardware and software. Families that
OUT.csv holds whole are left out, so that an interrupted run goes on. Reads only: no clock, power limit or other setting of the card is touched.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kernel_families import attention, collectives, copies, host, indexing, matmuls, models, optimizers, pointwise, power, reductions, vision
from kernel_families.bench import COLUMNS, Bench, Row, timed
from kernel_families.nvml import Nvml

FAMILIES: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "host": host.rows,
    "models": models.rows,
    "attention": lambda bench: timed(bench, attention.cases(bench)),
    "pointwise": lambda bench: timed(bench, pointwise.cases(bench)),
    "reductions": lambda bench: timed(bench, reductions.cases(bench)),
    "matmul": lambda bench: timed(bench, matmuls.cases(bench)),
    "bmm": lambda bench: timed(bench, matmuls.batched(bench)),
    "power": power.rows,
    "indexing": lambda bench: timed(bench, indexing.cases(bench)),
    "optimizers": lambda bench: timed(bench, optimizers.cases(bench)),
    "copies": lambda bench: timed(bench, copies.cases(bench)),
    "quantised": lambda bench: timed(bench, copies.quantised(bench)),
    "vision": lambda bench: timed(bench, vision.cases(bench)),
    "collectives": collectives.rows,
}


def environment() -> dict[str, Any]:
    """What was measured on, and with what."""
    found: dict[str, Any] = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version(), "cpu": _processor()}
    if not torch.cuda.is_available():
        return found
    properties = torch.cuda.get_device_properties(0)
    found.update(gpu=properties.name, sms=properties.multi_processor_count, l2=properties.L2_cache_size, memory=properties.total_memory)
    found.update(gpus=torch.cuda.device_count(), cudnn=torch.backends.cudnn.version(), nccl=".".join(map(str, torch.cuda.nccl.version())))
    try:
        gpu = Nvml()
        found.update(driver=gpu.driver(), power_limit_w=gpu.limit())
        found["clocks_mhz"] = {kind: gpu.clock(kind) for kind in ("sm", "memory")}
        found["max_clocks_mhz"] = {kind: gpu.max_clock(kind) for kind in ("sm", "memory")}
    except OSError as error:
        found["nvml"] = f"missing: {error}"
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def done(out: Path) -> set[str]:
    """Families that are in `out` whole: those followed by a line that says so."""
    if not out.exists():
        return set()
    with out.open(newline="") as file:
        return {row["op"] for row in csv.DictReader(file) if row["family"] == "done"}


def run(out: Path, wanted: list[str], bench: Bench, seconds: float) -> None:
    """Measure `wanted` families one after the other; those for which no time is left are named and left out."""
    new = not out.exists()
    started = time.monotonic()
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        for family in wanted:
            if time.monotonic() - started > seconds:
                print(f"{family}: no time left", file=sys.stderr, flush=True)
                continue
            try:
                _family(family, bench, writer, started + seconds)
            except Exception as error:
                print(f"{family}: stopped: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            file.flush()


def _family(family: str, bench: Bench, writer: csv.DictWriter[str], deadline: float) -> None:
    begun, count, failed = time.monotonic(), 0, 0
    for row in FAMILIES[family](bench):
        writer.writerow(row)
        count += 1
        failed += str(row["notes"]).startswith("failed")
        if time.monotonic() > deadline + 30:
            print(f"{family}: cut off after {count} rows", file=sys.stderr, flush=True)
            return
    writer.writerow({"family": "done", "op": family})
    print(f"{family}: {count} rows, {failed} failed, {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", help=f"comma-separated, of: {', '.join(FAMILIES)}")
    parser.add_argument("--seconds", type=float, default=240.0, help="begin no family after so long")
    parser.add_argument("--again", action="store_true", help="measure families that OUT.csv already holds once more")
    parser.add_argument("--dry", action="store_true")
    asked = parser.parse_args()
    names = asked.only.split(",") if asked.only else list(FAMILIES)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        parser.error(f"--only: {unknown[0]}: known: {', '.join(FAMILIES)}")
    if not asked.dry and not torch.cuda.is_available():
        parser.error("no CUDA device; --dry runs it on the processor")
    kept = set() if asked.again else done(asked.out)
    bench = Bench(torch.device("cpu" if asked.dry else "cuda:0"), asked.dry)
    asked.out.with_suffix(".json").write_text(json.dumps(environment(), indent=1) + "\n")
    wanted = [name for name in names if name not in kept]
    if asked.dry:
        run(asked.out, wanted, bench, asked.seconds)
        return
    # One stream of our own for everything, so that backward can be recorded in a graph as well.
    with torch.cuda.stream(torch.cuda.Stream()):
        run(asked.out, wanted, bench, asked.seconds)


if __name__ == "__main__":
    main()
