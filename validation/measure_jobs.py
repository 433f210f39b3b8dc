"""Measure many fine-tuning jobs on the GPUs of this machine, every sensor sampled, one line a job.

    python validation/measure_jobs.py OUT [--only WORD ...] [--seconds 560] [--pace 3] [--hbm pm] [--list]

OUT/results.jsonl gets one Run's document per job (values, verdict, versions, the sampler's manifest), OUT/series.tar its tables (20 ms series,
marks, processes) as Parquet. A job that is in results.jsonl already is skipped, so a second call goes on where the first stopped. Each job
runs in processes of its own with a time limit; one that fails is a line too. Jobs for two GPUs run where there are two; QLoRA, 8-bit
optimizers and DeepSpeed where their packages are. Reads only: no clock, power limit or other setting of a card is touched.
With `--pace SECONDS` the host's pace is measured for so long before and after each job (kernel_families/pace.py) and kept with its record.
With `--hbm pm` HBM bytes are counted at 20 ms: a repetition of its own, named NAME@pm, since counting holds the clocks.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import multiprocessing
import os
import shutil
import sys
import tarfile
import time
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "validation")]
# The ranks are processes of their own and must find the same package.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

from job_table import JOBS  # noqa: E402

from membound.errors import MemboundError  # noqa: E402
from membound.measure import door, here  # noqa: E402
from membound.measure import warm_up as before  # noqa: E402
from membound.measure.plan import Options  # noqa: E402
from membound.measure.source import Source  # noqa: E402
from membound.run import store  # noqa: E402
from membound.run.schema import Run  # noqa: E402
from membound.spec import catalogue  # noqa: E402
from membound.spec.job import Job  # noqa: E402

# Time that one job may take, s.
LIMIT = 75.0
REAL = Source()
RESULTS = "results.jsonl"
PACE = "kernel_families.pace"
# Time that the counted steps of a job should take together, s: a hundred of the driver's slowest readings.
MEASURED = 8.0
# Steps of a model that only shows, on any computer, that all of it runs; three of them are warm-up.
REHEARSED = 9
# What a step is taken to need before anything is known, to choose how many steps: rough, and only for that.
RATE, BANDWIDTH, LAUNCHES = 350e12, 2.0e12, 0.05


def main() -> None:
    """Measure what the command line asks for, until it is done or the time is up."""
    asked = _arguments()
    names = [name for name in JOBS if not asked.only or any(word in name for word in asked.only)]
    if asked.list:
        print("\n".join(f"{name}: {steps_of(JOBS[name])} steps" for name in names))
        return
    measure_all({name: JOBS[name] for name in names}, Path(asked.out), asked.seconds, asked.hbm, asked.limit, pace=asked.pace)


def measure_all(
    jobs: dict[str, dict[str, Any]],
    out: Path,
    seconds: float,
    hbm: str = "auto",
    asked: float = LIMIT,
    source: Source = REAL,
    pace: float = 0.0,
) -> list[str]:
    """Measure `jobs` that are not done yet, until `seconds` are over; the names of those for which no time was left.

    `asked` is what one job may take, s. `source` is the machine that the sampler asks. For `pace` seconds the host's is measured before and after
    each job.
    """
    cards, began = len(here.gpus()), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    there, left_over = done(out / RESULTS), []
    slowest = min(30.0, seconds)
    for name, written in jobs.items():
        title = name if hbm == "auto" else f"{name}@{hbm}"
        why = "done already" if title in there else cannot(written, cards)
        if why:
            print(f"{title:45} skipped: {why}", flush=True)
            continue
        left = seconds - (time.monotonic() - began)
        if left < slowest or left_over:
            print(f"{title:45} not begun: {left:.0f} s are left of {seconds:.0f}", flush=True)
            left_over.append(title)
            continue
        at = time.monotonic()
        before_it = host_pace(pace)
        record = measure(title, written, hbm, min(limit(written, asked), left), out, source)
        note(out / RESULTS, {**record, "pace": [before_it, host_pace(pace)]} if pace else record)
        slowest = max(slowest, min(time.monotonic() - at, 60.0))
    return left_over


def measure(title: str, written: dict[str, Any], hbm: str, limit: float, out: Path, source: Source) -> dict[str, Any]:
    """One job: a line on the screen, its tables into series.tar; its record."""
    # A folder of this call's own: processes of one that was killed may still be writing into theirs.
    for old in out.glob("running-*"):
        shutil.rmtree(old, ignore_errors=True)
    at, folder = time.monotonic(), out / f"running-{uuid.uuid4().hex[:8]}"
    job = Job.model_validate({**written, "recipe": dict(written["recipe"])})
    launcher: Any = "torchrun" if job.gpus > 1 else "alone"
    options = Options(steps=steps_of(written), warm_up=warm_up(written), weights="gpu", launcher=launcher, time_limit=limit, hbm=hbm)
    error = None
    try:
        run = door.measure(job, folder, options, source=source)
    except MemboundError as failure:
        error = str(failure)
        run = store.read(folder) if (folder / "run.json").is_file() else None
    seconds = time.monotonic() - at
    record = {"name": title, "seconds": seconds, "error": error, "run": run.document() if run else None}
    if run is not None:
        keep(out / "series.tar", folder / "tables", title)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{title:45} {line(run) if run and not error else error}  ({seconds:.0f} s)", flush=True)
    return record


def host_pace(seconds: float) -> dict[str, Any] | None:
    """What `kernel_families/pace.py` measures for `seconds`, in a process that ends after; None where it cannot be."""
    if not seconds:
        return None
    # Not PEFT, which imports bitsandbytes, which asks CUDA: a process that has done so cannot be forked.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers.models.llama.modeling_llama", "transformers.models.gpt2.modeling_gpt2"])
    for way in (context, multiprocessing.get_context("spawn")):
        try:
            with way.Pool(1) as pool:
                return dict(pool.apply(importlib.import_module(PACE).measured, (seconds,)))
        except (RuntimeError, ImportError) as error:
            why = str(error)
    # What was measured of the job counts without it.
    print(f"no host's pace: {why}", file=sys.stderr, flush=True)
    return None


def line(run: Run) -> str:
    """What a person wants to see go by."""

    def told(name: str, scale: float, digits: int, unit: str) -> str:
        number = run.number(name)
        return f"{'-' if number is None else f'{number / scale:.{digits}f}'} {unit}"

    return "  ".join(
        [
            f"{run.about['ended']['how']:10}",
            told("gpu.memory.allocated.peak", 2**30, 2, "GiB"),
            told("gpu.memory.reserved.peak", 2**30, 2, "reserved"),
            told("gpu.memory.used.peak", 2**30, 2, "used"),
            told("step.time", 1e-3, 1, "ms"),
            told("tokens.rate", 1, 0, "token/s"),
            told("gpu.power.mean", 1, 0, "W"),
            told("hbm.utilisation.mean", 0.01, 1, "% HBM"),
            f"{run.about['counted_steps']} steps",
        ]
    )


def warm_up(written: dict[str, Any]) -> int:
    """Steps before those that count."""
    return before.steps(Job.model_validate({**written, "recipe": dict(written["recipe"])}))


def steps_of(written: dict[str, Any]) -> int:
    """As many steps as fill `MEASURED` seconds by a rough guess, after those of warm-up."""
    if written["model"] == "tiny":
        return REHEARSED
    if "samples" in written["data"]:
        # Of a recommender's tables a step touches the rows that it looks up.
        return warm_up(written) + 400
    recipe, entry = written["recipe"], catalogue.model(written["model"])
    parameters = float(entry.parameters or 1e9)
    tokens = recipe["micro_batch"] * recipe.get("accumulation", 1) * written["data"].get("seq_len", 256)
    work = (4 if recipe.get("method", "full") != "full" else 6) + (2 if recipe.get("recompute") else 0)
    rate = RATE / (8 if recipe.get("precision") == "fp32" else 1)
    states = 0.0 if recipe.get("method", "full") != "full" else 30.0 * parameters / BANDWIDTH
    slow = 20.0 if "offload" in recipe else 1.0
    guess = (work * parameters * tokens / rate + states + LAUNCHES) * slow
    return warm_up(written) + max(6, min(160, round(MEASURED / guess)))


def limit(written: dict[str, Any], asked: float) -> float:
    """Time that a job may take, s. The first with an offloaded optimizer compiles it; 4-bit weights come from dense ones on the host."""
    slow = written["gpus"] > 1 or written["recipe"].get("method") == "qlora" or "lengths" in written["data"]
    return asked * (3.0 if "offload" in written["recipe"] else 2.0 if slow else 1.0)


def cannot(written: dict[str, Any], cards: int) -> str:
    """Why a job cannot run on this machine; empty if it can."""
    recipe = written["recipe"]
    wanted = {
        "bitsandbytes": recipe.get("method") == "qlora" or "8bit" in recipe.get("optimizer", ""),
        "deepspeed": recipe.get("engine") == "deepspeed",
    }
    missing = [package for package, needed in wanted.items() if needed and importlib.util.find_spec(package) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    # Ranks on the processor are as many as one likes.
    return f"needs {written['gpus']} GPUs, this machine has {cards}" if written["gpus"] > cards and written["model"] != "tiny" else ""


def keep(archive: Path, tables: Path, title: str) -> None:
    """Add `tables` to `archive`, which is whole at every moment: the machine may be taken away at any."""
    draft = archive.with_suffix(".draft")
    if archive.is_file():
        shutil.copyfile(archive, draft)
    with tarfile.open(draft, "a" if archive.is_file() else "w") as tar:
        tar.add(tables, title)
    draft.replace(archive)


def note(results: Path, record: dict[str, Any]) -> None:
    """Add a line to `results`, in place of one that was cut off."""
    lines = [json.dumps(each) + "\n" for each in _records(results)]
    draft = results.with_suffix(".draft")
    draft.write_text("".join([*lines, json.dumps(record) + "\n"]))
    draft.replace(results)


def _records(results: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for text in results.read_text().splitlines() if results.is_file() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(text))
    return found


def done(results: Path) -> set[str]:
    """Names of the records in `results`."""
    return {record["name"] for record in _records(results)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default="build/jobs", help="folder of the results")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="jobs whose name holds one of these")
    parser.add_argument("--seconds", type=float, default=1200.0, help="no job is begun that would outlast this")
    parser.add_argument("--limit", type=float, default=LIMIT, help="time that one job may take, s; more with two GPUs or offload")
    parser.add_argument("--pace", type=float, default=0.0, metavar="SECONDS", help="measure the host's pace so long before and after each job")
    parser.add_argument("--hbm", choices=("auto", "pm"), default="auto", help="pm: count HBM bytes at 20 ms")
    parser.add_argument("--list", action="store_true", help="name the jobs and their steps, and run nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
