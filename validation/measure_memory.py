"""Run Jobs for real on the GPU of this machine and write down what PyTorch and the driver say of memory.

    python validation/measure_memory.py OUT.jsonl [NAME ...]       measure (one process per job)
    python validation/measure_memory.py --ghost OUT.jsonl [NAME ...]   predict the same jobs with the same software

Reads only: no clock, power or other setting of the card is touched. Jobs are those of `JOBS`, small enough for one large GPU.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def job(model: str, data: dict[str, Any], **recipe: Any) -> dict[str, Any]:
    return {"model": model, "data": data, "recipe": recipe, "gpus": 1}


ALPACA = {"lengths": "alpaca", "max_length": 512}
JOBS: dict[str, dict[str, Any]] = {
    "1b-full-bf16": job("llama-3.2-1b", {"seq_len": 1024}, precision="bf16", micro_batch=4),
    "1b-full-mixed": job("llama-3.2-1b", {"seq_len": 1024}, precision="bf16-mixed", micro_batch=4),
    "1b-full-fp16": job("llama-3.2-1b", {"seq_len": 1024}, precision="fp16-mixed", micro_batch=4),
    "1b-full-fp32": job("llama-3.2-1b", {"seq_len": 1024}, precision="fp32", micro_batch=2),
    "1b-full-recompute": job("llama-3.2-1b", {"seq_len": 4096}, precision="bf16", micro_batch=2, recompute="full"),
    "1b-full-selective": job("llama-3.2-1b", {"seq_len": 2048}, precision="bf16", micro_batch=4, recompute="selective"),
    "1b-full-eager": job("llama-3.2-1b", {"seq_len": 1024}, precision="bf16", micro_batch=4, attention="eager"),
    "1b-full-padded": job("llama-3.2-1b", ALPACA, precision="bf16", micro_batch=16),
    "1b-full-accumulate": job("llama-3.2-1b", {"seq_len": 1024}, precision="bf16-mixed", micro_batch=2, accumulation=4),
    "1b-fused": job("llama-3.2-1b", {"seq_len": 1024}, precision="bf16", micro_batch=4, optimizer="adamw-fused"),
    "1b-adafactor": job("llama-3.2-1b", {"seq_len": 1024}, precision="bf16", micro_batch=4, optimizer="adafactor"),
    "1b-sgd": job("llama-3.2-1b", {"seq_len": 512}, precision="bf16", micro_batch=1, optimizer="sgd"),
    "1.5b-8bit": job("qwen2.5-1.5b", {"seq_len": 1024}, precision="bf16", micro_batch=2, optimizer="adamw-8bit"),
    "3b-full-recompute": job("llama-3.2-3b", {"seq_len": 2048}, precision="bf16", micro_batch=2, recompute="full"),
    "gpt2-xl-mixed": job("gpt2-xl", {"seq_len": 1024}, precision="bf16-mixed", micro_batch=4),
    "7b-lora-bf16": job("llama-7b", {"seq_len": 512}, precision="bf16", method="lora", micro_batch=4),
    "7b-lora-padded": job("llama-7b", ALPACA, precision="bf16-mixed", method="lora", micro_batch=4, lora={"dropout": 0.05}),
    "mistral-lora-4096": job("mistral-7b", {"seq_len": 4096}, precision="bf16-mixed", method="lora", micro_batch=2, recompute="full"),
    "7b-qlora": job("llama-7b", {"seq_len": 2048}, precision="bf16-mixed", method="qlora", micro_batch=2, recompute="full"),
    "7b-qlora-padded": job("llama-7b", ALPACA, precision="bf16", method="qlora", micro_batch=8, optimizer="paged-adamw-8bit"),
    "7b-full-bf16": job("llama-7b", {"seq_len": 512}, precision="bf16", micro_batch=4),
    "7b-full-fused": job("llama-7b", {"seq_len": 2048}, precision="bf16", micro_batch=4, optimizer="adamw-fused", recompute="full"),
    "13b-full-bf16": job("llama-13b", {"seq_len": 512}, precision="bf16", micro_batch=1, recompute="full", optimizer="adamw-fused"),
    "falcon-7b-lora": job("falcon-7b", {"seq_len": 1024}, precision="bf16", method="lora", micro_batch=2, lora={"targets": ["query_key_value"]}),
    "gemma-2b-full": job("gemma-2b", {"seq_len": 1024}, precision="bf16", micro_batch=2),
    "1b-fsdp": job("llama-3.2-1b", {"seq_len": 1024}, precision="bf16-mixed", micro_batch=4, engine="fsdp"),
    "1b-ddp": job("llama-3.2-1b", {"seq_len": 1024}, precision="bf16-mixed", micro_batch=4, engine="ddp"),
    "1b-zero1": job("llama-3.2-1b", {"seq_len": 1024}, precision="bf16-mixed", micro_batch=4, engine="deepspeed", zero_stage=1),
    "1b-zero2": job("llama-3.2-1b", {"seq_len": 1024}, precision="bf16-mixed", micro_batch=4, engine="deepspeed", zero_stage=2),
    "1b-zero3": job("llama-3.2-1b", {"seq_len": 1024}, precision="bf16-mixed", micro_batch=4, engine="deepspeed", zero_stage=3),
    "1b-zero3-offload": job(
        "llama-3.2-1b",
        {"seq_len": 1024},
        precision="bf16-mixed",
        micro_batch=4,
        engine="deepspeed",
        zero_stage=3,
        offload={"optimizer": "cpu", "params": "cpu"},
    ),
}


def measure(name: str) -> dict[str, Any]:
    """Train for three steps on cuda; the values that PyTorch's allocator and the driver give. Bytes."""
    import psutil
    import pynvml
    import torch

    from membound.programs import data
    from membound.programs.causal_lm import CausalLM
    from membound.programs.world import World
    from membound.spec.catalogue import model
    from membound.spec.job import Job

    spec = Job.model_validate(JOBS[name])
    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    before = pynvml.nvmlDeviceGetMemoryInfo(handle).used
    torch.zeros(1, device="cuda")
    torch.cuda.synchronize()
    bare = pynvml.nvmlDeviceGetMemoryInfo(handle).used
    if spec.recipe.engine != "none":
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="29555")
        torch.distributed.init_process_group("nccl", device_id=torch.device("cuda:0"))
    history = _History()
    watcher = _Peaks()
    program = CausalLM(spec, model(spec.model).config)
    batch = data.planned(spec.data, spec.recipe.micro_batch)
    started = time.time()
    with history:
        # DeepSpeed skips a step whose gradients overflow, and then never makes the optimizer's states: it needs weights that are numbers.
        weights: Any = "random" if spec.recipe.engine == "deepspeed" else "empty"
        program.run(World(torch.device("cuda:0"), weights=weights, watcher=watcher), 3, lambda _: batch)
    torch.cuda.synchronize()
    stats = torch.cuda.memory_stats()
    used = pynvml.nvmlDeviceGetMemoryInfo(handle).used
    return {
        "allocated": stats["allocated_bytes.all.peak"],
        "active": stats["active_bytes.all.peak"],
        "requested": stats["requested_bytes.all.peak"],
        "reserved": stats["reserved_bytes.all.peak"],
        "reserved_end": stats["reserved_bytes.all.current"],
        "retries": stats["num_alloc_retries"],
        "used_before": before,
        "context_bare": bare - before,
        "used_end": used - before,
        "outside": used - before - stats["reserved_bytes.all.current"],
        "host_rss": psutil.Process().memory_info().rss,
        "host_rss_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "host_pinned": torch.cuda.host_memory_stats() if hasattr(torch.cuda, "host_memory_stats") else None,
        "seconds": time.time() - started,
        "phases": watcher.peaks,
        "events": history.compact(),
    }


class _Peaks:
    """Allocated peak and end of each phase."""

    def __init__(self) -> None:
        self.peaks: list[Any] = []

    def phase(self, name: str, step: int = -1, micro: int = -1) -> Any:
        import contextlib

        import torch

        @contextlib.contextmanager
        def run() -> Any:
            torch.cuda.synchronize()
            start = torch.cuda.memory_allocated()
            yield
            torch.cuda.synchronize()
            self.peaks.append([name, step, micro, start, torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated(), time.time()])

        return run()

    def watch_model(self, model: Any) -> None: ...

    def tag(self, category: str, tensors: Any) -> None: ...

    def loss(self, step: int, loss: Any) -> None: ...

    def step_done(self, step: int) -> None: ...


class _History:
    """The allocator's own events, when MEMBOUND_EVENTS is set."""

    def __enter__(self) -> _History:
        import torch

        self.on = bool(os.environ.get("MEMBOUND_EVENTS"))
        if self.on:
            torch.cuda.memory._record_memory_history(context="alloc", stacks="python", max_entries=400_000)
        return self

    def __exit__(self, *exc: object) -> None: ...

    def compact(self) -> list[Any]:
        import torch

        if not self.on:
            return []
        snapshot = torch.cuda.memory._snapshot()
        return [
            [e["action"], e["size"], e["addr"], e.get("stream", 0), [f"{Path(f['filename']).name}:{f['line']}" for f in e.get("frames", [])[:6]]]
            for e in snapshot["device_traces"][0]
        ]


def ghost(name: str) -> dict[str, Any]:
    """What the ghost says of the same job with the software installed here. Bytes."""
    from membound.ghost.run import record
    from membound.spec.catalogue import model
    from membound.spec.job import Job
    from membound.trace.store import write

    spec = Job.model_validate(JOBS[name])
    started = time.time()
    trace = record(spec, model(spec.model).config, 1)
    seconds = time.time() - started
    if out := os.environ.get("MEMBOUND_TRACES"):
        write(trace, Path(out) / name)
    return {**_peaks(trace), "seconds": seconds}


def _peaks(trace: Any) -> dict[str, Any]:
    from membound.replay.memory import replay
    from membound.spec.catalogue import machine

    gpu = replay(trace, machine("h200")).gpu
    return {
        "allocated": gpu.allocated_peak,
        "active": gpu.active_peak,
        "reserved": gpu.reserved_peak,
        "steady_reserved": gpu.steady_reserved_peak,
        "context": gpu.context,
        "libraries": gpu.libraries,
        "moment": [gpu.moment.phase, gpu.moment.step, gpu.moment.op, gpu.moment.line],
    }


def environment() -> dict[str, Any]:
    """Software and hardware, for the record."""
    from importlib import metadata

    found: dict[str, Any] = {}
    for package in ("torch", "transformers", "peft", "bitsandbytes", "deepspeed", "accelerate"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[0] == "--one":
        mode, name = arguments[1:3]
        result = measure(name) if mode == "gpu" else ghost(name)
        print("RESULT " + json.dumps(result))
        return
    mode = "ghost" if arguments[0] == "--ghost" else "gpu"
    out, *names = arguments[1:] if mode == "ghost" else arguments

    def one(name: str) -> dict[str, Any]:
        done = subprocess.run([sys.executable, __file__, "--one", mode, name], capture_output=True, text=True, timeout=300)
        lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        record: dict[str, Any] = {"name": name, "job": JOBS[name], "mode": mode, "environment": environment()}
        record |= json.loads(lines[-1][7:]) if lines else {"error": done.stderr[-1500:]}
        print(name, mode, record.get("allocated", record.get("error", "")[-300:]), f"{record.get('seconds', 0):.1f} s", flush=True)
        return record

    with ThreadPoolExecutor(2 if mode == "ghost" else 1) as pool, open(out, "a") as file:
        for record in pool.map(one, names or JOBS):
            file.write(json.dumps(record) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
