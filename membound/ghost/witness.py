"""Witness a real run: the same Program on this computer's CPU, its operators and storages recorded as the ghost's are.

Where PyTorch can be asked for CUDA's choice on the CPU (multi-tensor optimizers, fused dropout), it is. What remains different is
listed in `membound.ghost.allowed`. Run as a module it answers requests, one JSON line each, on standard input.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from membound.ghost import autocast, choices
from membound.ghost.header import header, shortened
from membound.ghost.private.distributed import finished, unheard_sharding_propagation
from membound.ghost.private.fakes import holders
from membound.ghost.private.fsdp import replace_storage_resize
from membound.ghost.private.optimizers import multi_tensor_on
from membound.ghost.recorder import Recorder
from membound.ghost.run import STEPS
from membound.ghost.watcher import GhostWatcher
from membound.programs import registry
from membound.programs.world import World
from membound.spec.job import Job
from membound.trace import store
from membound.trace.schema import Trace

DEVICE: Final = "cpu"
_PATIENCE: Final = 5.0
"""How long to wait for a thread to let go of a tensor, s."""
_COLLECTIVES: Final = [f"c10d.{name}_.default" for name in ("allreduce", "broadcast", "_allgather_base", "_reduce_scatter_base", "reduce")]


def witness(job: Job, config: dict[str, Any], steps: int = STEPS, rank: int = 0) -> Trace:
    """Train for real on the CPU as `rank` of `job.gpus` and return what that launched.

    With several ranks, the default process group stands already. The CPU's memory plays the GPU's: every storage counts as on it.
    """
    # DDP's reducer reads a collective's future itself.
    recorder = Recorder(DEVICE, dict.fromkeys(_COLLECTIVES, _let_go) if job.recipe.engine in {"fsdp", "deepspeed"} else None)
    watcher = GhostWatcher(recorder)
    per_node = min(int(os.environ.get("LOCAL_WORLD_SIZE", job.gpus)), job.gpus)
    world = World(torch.device(DEVICE), rank=rank, size=job.gpus, per_node=per_node, watcher=watcher)
    torch.manual_seed(0)
    with _as_on_cuda(recorder), recorder:
        program = registry.program(shortened(job), config)
        engine = program.run(world, steps, lambda index: program.planned())
        about = header(job, world, steps, engine.model)
        recorder.where.close()
        return recorder.builder.finish(**about)


@contextmanager
def _as_on_cuda(recorder: Recorder) -> Iterator[None]:
    """CUDA's choices, where the CPU can make them too."""
    plain = F.dropout
    attention = F.scaled_dot_product_attention
    undo = [replace_storage_resize(recorder.storages.resized), unheard_sharding_propagation(recorder.pause)]
    scaler = torch.amp.GradScaler
    F.dropout = choices.dropout
    F.scaled_dot_product_attention = _unfused_where_cuda_is(attention)
    vars(torch.amp)["GradScaler"] = functools.partial(scaler, init_scale=1.0)  # a scale that has settled: the usual one's first steps overflow
    try:
        with multi_tensor_on(DEVICE), autocast.completed_on_cpu():
            yield
    finally:
        F.dropout, F.scaled_dot_product_attention = plain, attention
        vars(torch.amp)["GradScaler"] = scaler
        for step in undo:
            step()


def _unfused_where_cuda_is(attention: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Of CUDA's fused kernels only flash takes grouped queries, in 16 bits and without a mask: without one, matmuls and softmax it is."""

    def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        half = query.dtype in {torch.float16, torch.bfloat16} or torch.is_autocast_enabled(DEVICE)
        fused = key.shape[-3] == query.shape[-3] or (half and attn_mask is None)
        with nullcontext() if fused else sdpa_kernel(SDPBackend.MATH):
            return attention(query, key, value, attn_mask, *args, **kwargs)

    return run


def _let_go(recorder: Recorder, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Gloo's threads hold a collective's tensors for as long as they like: go on only when they have let go, so that frees have one order."""
    tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)]
    before = [holders(tensor) for tensor in tensors]
    deadline = time.monotonic() + _PATIENCE

    def held() -> bool:
        now = [holders(tensor) for tensor in tensors]
        return any(n > b for n, b in zip(now, before, strict=True)) and time.monotonic() < deadline

    return finished(func(*args, **kwargs), held)


def main() -> None:
    """Answer requests {job, config, folder}: each Trace goes to its folder, `done` or the error to standard output."""
    gc.disable()  # when it runs must not show in what lives
    ranks, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if ranks > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=ranks)
    answers = sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        try:
            with redirect_stdout(sys.stderr):
                trace = witness(Job.model_validate(request["job"]), request["config"], rank=rank)
            store.write(trace, Path(request["folder"]))
            answer = "done"
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        gc.collect()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
