"""Measures the kernels of fine-tuning on the GPU of this machine; runs in a process of its own and needs PyTorch alone.

Writes one row for each kernel (columns: run.py) and, beside it, OUT.json with the hardware and software. Families that OUT.csv holds whole are left
out, so that an interrupted run goes on. Reads only: no clock, power limit or other setting of the card is touched.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch

from membound.measure.calibrate import attention, collectives, copies, host, indexing, matmuls, optimizers, pointwise, reductions, vision
from membound.measure.calibrate.bench import Bench, Row, timed
from membound.measure.calibrate.nvml import Nvml
from membound.measure.calibrate.run import COLUMNS, MARK

Family = Callable[[Bench], Iterator[Row]]
# In the order in which they are measured: what most of a step hangs on first, should time run out.
FAMILIES: Final[Mapping[str, Family]] = {
    "host": host.rows,
    "copies": lambda bench: timed(bench, copies.cases(bench)),
    "pointwise": lambda bench: timed(bench, pointwise.cases(bench)),
    "matmul": lambda bench: timed(bench, matmuls.cases(bench)),
    "attention": lambda bench: timed(bench, attention.cases(bench)),
    "reductions": lambda bench: timed(bench, reductions.cases(bench)),
    "optimizers": lambda bench: timed(bench, optimizers.cases(bench)),
    "bmm": lambda bench: timed(bench, matmuls.batched(bench)),
    "indexing": lambda bench: timed(bench, indexing.cases(bench)),
    "quantised": lambda bench: timed(bench, copies.quantised(bench)),
    "collectives": collectives.rows,
    "vision": lambda bench: timed(bench, vision.cases(bench)),
}
# A family that has begun may go on for so long after the time is up, s.
_GRACE: Final = 20.0


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


def run(out: Path, families: Mapping[str, Family], bench: Bench, seconds: float) -> None:
    """Measure `families` one after the other into `out`; those for which no time is left are named and left out."""
    new = not out.exists()
    deadline = time.monotonic() + seconds
    with out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        for name, family in families.items():
            if time.monotonic() > deadline:
                _say(f"{name}: no time left")
                continue
            try:
                _measure(name, family(bench), writer, deadline + _GRACE)
            except Exception as error:
                _say(f"{name}: stopped: {type(error).__name__}: {error}")
            file.flush()


def _measure(name: str, rows: Iterator[Row], writer: csv.DictWriter[str], deadline: float) -> None:
    begun, count, failed = time.monotonic(), 0, 0
    for row in rows:
        writer.writerow(row)
        count += 1
        failed += str(row["notes"]).startswith("failed")
        if time.monotonic() > deadline:
            _say(f"{name}: cut off after {count} rows")
            return
    writer.writerow({"family": "done", "op": name})
    _say(f"{name}: {count} rows, {failed} failed, {time.monotonic() - begun:.1f} s")


def _say(text: str) -> None:
    print(MARK + " ".join(text.split()), file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None, families: Mapping[str, Family] = FAMILIES) -> None:
    """Measure as the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", help=f"comma-separated, of: {', '.join(families)}")
    parser.add_argument("--seconds", type=float, default=240.0, help="begin no family after so long")
    parser.add_argument("--again", action="store_true", help="measure families that OUT.csv already holds once more")
    parser.add_argument("--dry", action="store_true", help="on the processor, tiny, to see that it runs")
    asked = parser.parse_args(arguments)
    names = asked.only.split(",") if asked.only else list(families)
    unknown = [name for name in names if name not in families]
    if unknown:
        parser.error(f"--only: {unknown[0]}: known: {', '.join(families)}")
    if not asked.dry and not torch.cuda.is_available():
        parser.error("no CUDA device; --dry runs it on the processor")
    kept = set() if asked.again else done(asked.out)
    bench = Bench(torch.device("cpu" if asked.dry else "cuda:0"), asked.dry)
    asked.out.with_suffix(".json").write_text(json.dumps(environment(), indent=1) + "\n")
    wanted = {name: families[name] for name in names if name not in kept}
    if asked.dry:
        # Tiny tensors: a second thread would only wait for the first, and for whatever else runs here.
        torch.set_num_threads(1)
        run(asked.out, wanted, bench, asked.seconds)
        return
    # One stream of our own for everything, so that backward can be recorded in a graph as well.
    with torch.cuda.stream(torch.cuda.Stream()):
        run(asked.out, wanted, bench, asked.seconds)


if __name__ == "__main__":
    main()
