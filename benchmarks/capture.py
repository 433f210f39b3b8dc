"""How long a cold prediction takes, and how much memory the capture needs, beside PyTorch's own memory tracker on the same model.

    python benchmarks/capture.py [NAME ...]

Each row is one fresh process, its start included, without cache. Compare within one run: machines differ and are noisy.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

JOBS: dict[str, dict[str, Any]] = {
    "llama-7b, one GPU": {"model": "llama-7b", "data": {"seq_len": 512}, "recipe": {"precision": "bf16"}, "machine": "h200"},
    "llama-7b, ZeRO-3, 8 ranks": {
        "model": "llama-7b",
        "data": {"seq_len": 512},
        "recipe": {"engine": "deepspeed", "zero_stage": 3},
        "gpus": 8,
    },
    "llama-65b, ZeRO-3 offload, 8 ranks": {
        "model": "llama-65b",
        "data": {"seq_len": 256},
        "recipe": {"engine": "deepspeed", "zero_stage": 3, "offload": {"optimizer": "cpu", "params": "cpu"}, "recompute": "full"},
        "gpus": 8,
    },
    "llama-3.1-405b, FSDP2, 1024 ranks": {
        "model": "llama-3.1-405b",
        "data": {"seq_len": 4096},
        "recipe": {"engine": "fsdp", "recompute": "full"},
        "gpus": 1024,
    },
}

TRACKER = """
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoModelForCausalLM
from membound.programs.models import configuration
from membound.spec.catalogue import model as entry
from membound.spec.job import Job
job = Job(model="llama-7b", data={"seq_len": 512})
with FakeTensorMode():
    model = AutoModelForCausalLM.from_config(configuration(job, entry("llama-7b").config), dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    tracker = MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        for _ in range(2):
            tracker.reset_mod_stats()
            ids = torch.ones(1, 512, dtype=torch.int64)
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
"""


def run(command: list[str]) -> tuple[float, float, str]:
    """Wall seconds, user and system seconds, and what was printed."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - start, used, done.stdout


def main(names: list[str]) -> None:
    """Print one row per job, then the ratio to PyTorch's tracker, then a cached answer."""
    print(f"{'job':38s} {'wall s':>8s} {'cpu s':>8s} {'capture GiB':>12s}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MEMBOUND_CACHE"] = folder
        first = 0.0
        for name, job in JOBS.items():
            if names and name not in names:
                continue
            path = Path(folder) / "job.yaml"
            path.write_text(yaml.safe_dump(job))
            command = [sys.executable, "-m", "membound", "predict", str(path), "--json", "--no-advice"]
            wall, used, out = run(command)
            resident = json.loads(out)["about"]["capture"]["resident"] / 2**30
            print(f"{name:38s} {wall:8.1f} {used:8.1f} {resident:12.2f}", flush=True)
            first = first or wall
            wall, used, _ = run(command)
            print(f"{'  the same, cached':38s} {wall:8.1f} {used:8.1f}", flush=True)
        if not names:
            wall, used, _ = run([sys.executable, "-W", "ignore", "-c", TRACKER])
            tracker = "PyTorch's MemTracker, llama-7b"
            print(f"{tracker:38s} {wall:8.1f} {used:8.1f}   {wall / first:.1f} times membound's")


if __name__ == "__main__":
    main(sys.argv[1:])
