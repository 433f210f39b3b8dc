"""Measure many fine-tuning jobs on the GPUs of this machine, every sensor sampled, one line a job.

    python validation/measure_jobs.py OUT [--only WORD ...] [--seconds 560] [--hbm pm] [--list]

OUT/results.jsonl gets one Run's document per job (values, verdict, versions, the sampler's manifest), OUT/series.tar its tables (20 ms series,
marks, processes) as Parquet. A job that is in results.jsonl already is skipped, so a second call goes on where the first stopped. Each job
runs in processes of its own with a time limit; one that fails is a line too. Jobs for two GPUs run where there are two; QLoRA, 8-bit
optimizers and DeepSpeed where their packages are. Reads only: no clock, power limit or other setting of a card is touched.
With `--hbm pm` HBM bytes are counted at 20 ms: a repetition of its own, named NAME@pm, since counting holds the clocks.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
# The ranks are processes of their own and must find the same package.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

from membound.errors import MemboundError  # noqa: E402
from membound.measure import door, here  # noqa: E402
from membound.measure.plan import Options  # noqa: E402
from membound.run import store  # noqa: E402
from membound.run.schema import Run  # noqa: E402
from membound.spec import catalogue  # noqa: E402
from membound.spec.job import Job  # noqa: E402

ALPACA = {"lengths": "alpaca", "max_length": 512}
# Time that the counted steps of a job should take together, s: a hundred of the driver's slowest readings.
MEASURED = 8.0
# What a step is taken to need before anything is known, to choose how many steps: rough, and only for that.
RATE, BANDWIDTH, LAUNCHES = 350e12, 2.0e12, 0.05


def job(model: str, rows: int, length: int, gpus: int = 1, **recipe: Any) -> dict[str, Any]:
    return {"model": model, "data": {"seq_len": length} if length else ALPACA, "recipe": {"micro_batch": rows, **recipe}, "gpus": gpus}


def lora(model: str, rows: int, length: int, **recipe: Any) -> dict[str, Any]:
    return job(model, rows, length, **{"method": "lora", "precision": "bf16", **recipe})


def zero(model: str, rows: int, length: int, stage: int, **recipe: Any) -> dict[str, Any]:
    return job(model, rows, length, gpus=2, engine="deepspeed", zero_stage=stage, **recipe)


QUERY = {"targets": ["query_key_value"]}
JOBS: dict[str, dict[str, Any]] = {
    # The report's techniques on 7B, and what brings their memory down.
    "llama-7b-lora-4x512": lora("llama-7b", 4, 512),
    "llama-7b-full-sgd-4x512": job("llama-7b", 4, 512, precision="bf16", optimizer="sgd"),
    "llama-3.2-3b-full-mixed-fused-2x1024": job("llama-3.2-3b", 2, 1024, optimizer="adamw-fused", recompute="full"),
    "llama-3.2-1b-full-mixed-4x1024": job("llama-3.2-1b", 4, 1024),
    "mistral-7b-lora-2x4096-recompute": lora("mistral-7b", 2, 4096, recompute="full"),
    "qwen2.5-7b-lora-4x1024": lora("qwen2.5-7b", 4, 1024),
    "llama-2-13b-lora-4x512": lora("llama-2-13b", 4, 512),
    "gemma-2-9b-lora-2x1024": lora("gemma-2-9b", 2, 1024),
    "llama-7b-full-adafactor-4x512": job("llama-7b", 4, 512, precision="bf16", optimizer="adafactor"),
    "llama-7b-full-adamw-4x512": job("llama-7b", 4, 512, precision="bf16"),
    "llama-7b-full-fused-4x2048-recompute": job("llama-7b", 4, 2048, precision="bf16", optimizer="adamw-fused", recompute="full"),
    "llama-7b-qlora-4x512": job("llama-7b", 4, 512, method="qlora"),
    "llama-3.2-1b-qlora-4x1024": job("llama-3.2-1b", 4, 1024, method="qlora"),
    "llama-7b-qlora-2x2048-recompute": job("llama-7b", 2, 2048, method="qlora", recompute="full"),
    "llama-7b-lora-16x512-recompute": lora("llama-7b", 16, 512, recompute="full"),
    "llama-7b-lora-1x256": lora("llama-7b", 1, 256),
    "llama-7b-lora-1x2048": lora("llama-7b", 1, 2048),
    "llama-7b-lora-mixed-4x512": lora("llama-7b", 4, 512, precision="bf16-mixed"),
    "llama-7b-lora-alpaca-4": lora("llama-7b", 4, 0, precision="bf16-mixed", lora={"dropout": 0.05}),
    "mistral-7b-lora-1x4096": lora("mistral-7b", 1, 4096),
    "llama-3-8b-lora-2x2048-recompute": lora("llama-3-8b", 2, 2048, recompute="full"),
    "llama-2-13b-lora-1x4096-recompute": lora("llama-2-13b", 1, 4096, recompute="full"),
    "llama-3.2-3b-full-bf16-4x1024-recompute": job("llama-3.2-3b", 4, 1024, precision="bf16", recompute="full"),
    "llama-3.2-1b-full-mixed-16x512": job("llama-3.2-1b", 16, 512),
    "llama-3.2-1b-full-bf16-1x256": job("llama-3.2-1b", 1, 256, precision="bf16"),
    "llama-3.2-1b-full-bf16-4x4096-recompute": job("llama-3.2-1b", 4, 4096, precision="bf16", recompute="full"),
    "llama-3.2-1b-full-bf16-4x2048-selective": job("llama-3.2-1b", 4, 2048, precision="bf16", recompute="selective"),
    "llama-3.2-1b-full-mixed-2x1024x4": job("llama-3.2-1b", 2, 1024, accumulation=4),
    "llama-3.2-1b-full-bf16-alpaca-8": job("llama-3.2-1b", 8, 0, precision="bf16"),
    "llama-3.2-1b-full-fp16-4x1024": job("llama-3.2-1b", 4, 1024, precision="fp16-mixed"),
    "llama-3.2-1b-full-fp32-2x1024": job("llama-3.2-1b", 2, 1024, precision="fp32"),
    "gpt2-xl-full-mixed-4x1024": job("gpt2-xl", 4, 1024),
    "qwen2.5-1.5b-full-bf16-4x1024": job("qwen2.5-1.5b", 4, 1024, precision="bf16"),
    "gemma-2b-full-bf16-2x1024": job("gemma-2b", 2, 1024, precision="bf16"),
    "falcon-7b-lora-2x1024": lora("falcon-7b", 2, 1024, lora=QUERY),
    "llama-3.2-1b-full-8bit-4x1024": job("llama-3.2-1b", 4, 1024, precision="bf16", optimizer="adamw-8bit"),
    "llama-2-13b-qlora-4x512-recompute": job("llama-2-13b", 4, 512, method="qlora", recompute="full"),
    # Too large for 80 GB: out of memory is a result.
    "llama-7b-full-mixed-4x512": job("llama-7b", 4, 512),
    # Two GPUs.
    "2x-llama-3.2-1b-ddp-4x1024": job("llama-3.2-1b", 4, 1024, gpus=2, engine="ddp"),
    "2x-llama-3.2-1b-fsdp-4x1024": job("llama-3.2-1b", 4, 1024, gpus=2, engine="fsdp"),
    "2x-llama-3.2-3b-fsdp-4x1024": job("llama-3.2-3b", 4, 1024, gpus=2, engine="fsdp", recompute="full"),
    "2x-llama-7b-fsdp-bf16-4x1024": job("llama-7b", 4, 1024, gpus=2, engine="fsdp", precision="bf16", optimizer="adamw-fused", recompute="full"),
    "2x-llama-3.2-1b-zero1-4x1024": zero("llama-3.2-1b", 4, 1024, 1),
    "2x-llama-3.2-1b-zero2-4x1024": zero("llama-3.2-1b", 4, 1024, 2),
    "2x-llama-3.2-1b-zero3-4x1024": zero("llama-3.2-1b", 4, 1024, 3),
    "2x-llama-3.2-3b-zero2-4x1024": zero("llama-3.2-3b", 4, 1024, 2, recompute="full"),
    "2x-llama-3.2-3b-zero3-4x1024": zero("llama-3.2-3b", 4, 1024, 3, recompute="full"),
    "2x-llama-3.2-1b-zero2-offload-4x1024": zero("llama-3.2-1b", 4, 1024, 2, offload={"optimizer": "cpu"}),
    "2x-llama-3.2-1b-zero3-offload-4x1024": zero("llama-3.2-1b", 4, 1024, 3, offload={"optimizer": "cpu", "params": "cpu"}),
}


def main() -> None:
    """Measure what the command line asks for, until it is done or the time is up."""
    asked = _arguments()
    names = [name for name in JOBS if not asked.only or any(word in name for word in asked.only)]
    if asked.list:
        print("\n".join(f"{name}: {steps_of(JOBS[name])} steps" for name in names))
        return
    out, cards, began = Path(asked.out), len(here.gpus()), time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    done = _done(out)
    slowest = 30.0
    for name in names:
        title = name if asked.hbm == "auto" else f"{name}@{asked.hbm}"
        why = "done already" if title in done else cannot(JOBS[name], cards)
        if why:
            print(f"{title:45} skipped: {why}", flush=True)
            continue
        left = asked.seconds - (time.monotonic() - began)
        if left < slowest:
            print(f"{title:45} not begun: {left:.0f} s are left of {asked.seconds:.0f}", flush=True)
            break
        at = time.monotonic()
        measure(title, JOBS[name], asked.hbm, min(limit(JOBS[name], asked.limit), left), out)
        slowest = max(slowest, min(time.monotonic() - at, 60.0))


def measure(title: str, written: dict[str, Any], hbm: str, limit: float, out: Path) -> None:
    """One job: a line on the screen, a line in results.jsonl, its tables into series.tar."""
    at, folder = time.monotonic(), out / "running"
    shutil.rmtree(folder, ignore_errors=True)
    job = Job.model_validate({**written, "recipe": dict(written["recipe"])})
    launcher: Any = "torchrun" if job.gpus > 1 else "alone"
    options = Options(steps=steps_of(written), warm_up=3, weights="gpu", launcher=launcher, time_limit=limit, hbm=hbm)
    error = None
    try:
        run = door.measure(job, folder, options)
    except MemboundError as failure:
        error = str(failure)
        run = store.read(folder) if (folder / "run.json").is_file() else None
    seconds = time.monotonic() - at
    record = {"name": title, "seconds": seconds, "error": error, "run": run.document() if run else None}
    with (out / "results.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    if run is not None:
        with tarfile.open(out / "series.tar", "a") as tar:
            tar.add(folder / "tables", title)
    shutil.rmtree(folder, ignore_errors=True)
    print(f"{title:45} {line(run) if run and not error else error}  ({seconds:.0f} s)", flush=True)


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


def steps_of(written: dict[str, Any]) -> int:
    """As many steps as fill `MEASURED` seconds by a rough guess, after three of warm-up."""
    recipe, entry = written["recipe"], catalogue.model(written["model"])
    parameters = float(entry.parameters or 1e9)
    tokens = recipe["micro_batch"] * recipe.get("accumulation", 1) * written["data"].get("seq_len", 256)
    work = (4 if recipe.get("method", "full") != "full" else 6) + (2 if recipe.get("recompute") else 0)
    rate = RATE / (8 if recipe.get("precision") == "fp32" else 1)
    states = 0.0 if recipe.get("method", "full") != "full" else 30.0 * parameters / BANDWIDTH
    slow = 20.0 if "offload" in recipe else 1.0
    guess = (work * parameters * tokens / rate + states + LAUNCHES) * slow
    return 3 + max(6, min(40, round(MEASURED / guess)))


def limit(written: dict[str, Any], asked: float) -> float:
    """Time that a job may take, s. The first with an offloaded optimizer compiles it; 4-bit weights come from dense ones on the host."""
    slow = written["gpus"] > 1 or written["recipe"].get("method") == "qlora"
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
    return f"needs {written['gpus']} GPUs, this machine has {cards}" if written["gpus"] > cards else ""


def _done(out: Path) -> set[str]:
    if not (out / "results.jsonl").is_file():
        return set()
    return {json.loads(text)["name"] for text in (out / "results.jsonl").read_text().splitlines()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", default="build/jobs", help="folder of the results")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="jobs whose name holds one of these")
    parser.add_argument("--seconds", type=float, default=1200.0, help="no job is begun that would outlast this")
    parser.add_argument("--limit", type=float, default=75.0, help="time that one job may take, s; more with two GPUs or offload")
    parser.add_argument("--hbm", choices=("auto", "pm"), default="auto", help="pm: count HBM bytes at 20 ms")
    parser.add_argument("--list", action="store_true", help="name the jobs and their steps, and run nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
