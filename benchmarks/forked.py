"""What many captures in a row cost, each by a process that imports PyTorch itself, and forked from one that has.

    python benchmarks/forked.py [TIMES]

The jobs are those in which ZeRO stages are compared, Llama-7B's shortest. Processor time is that of all processes, starts included; Traces must be
the same. Compare within one run: machines differ and are noisy.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from membound.ghost.capture import Limits, capture
from membound.ghost.processes import Start, fresh
from membound.ghost.servers import preloaded
from membound.spec import catalogue
from membound.spec.job import Job
from membound.trace.schema import Trace

RECIPE = {"precision": "bf16-mixed", "engine": "deepspeed", "micro_batch": 1, "accumulation": 1}
WAYS: dict[str, Callable[[], AbstractContextManager[Start]]] = {"each imports": lambda: nullcontext(fresh), "forked": preloaded}


def captured(stage: int, start: Start) -> Trace:
    """Llama-7B's step on eight GPUs at a ZeRO stage."""
    job = Job.model_validate({"model": "llama-7b", "data": {"seq_len": 64}, "recipe": {**RECIPE, "zero_stage": stage}, "gpus": 8})
    return capture(job, catalogue.model_entry(job.model).config, 8, Limits(seconds=3600.0), start=start)


def used() -> float:
    """Processor seconds of ended children and theirs."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def same(one: Trace, other: Trace) -> bool:
    """Whether two Traces agree entry for entry."""
    tables = ((one.instructions, other.instructions), (one.operands, other.operands), (one.storages, other.storages))
    return one.header == other.header and all(np.array_equal(ours[name], theirs[name]) for ours, theirs in tables for name in theirs)


def main(times: int) -> None:
    """Print a row per way and time, alternately."""
    print(f"{'four captures':16s} {'wall s':>8s} {'cpu s':>8s}")
    first: list[Trace] = []
    for _ in range(times):
        for way, starts in WAYS.items():
            before, began = used(), time.perf_counter()
            with starts() as start:
                traces = [captured(stage, start) for stage in range(4)]
            print(f"{way:16s} {time.perf_counter() - began:8.1f} {used() - before:8.1f}", flush=True)
            first = first or traces
            assert all(same(*pair) for pair in zip(first, traces, strict=True))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
