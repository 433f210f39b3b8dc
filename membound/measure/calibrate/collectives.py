"""NCCL among the GPUs of this machine: one process each, times by events on the first rank."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from membound.measure.calibrate.bench import Bench, Row
from membound.measure.calibrate.run import COLUMNS

SIZES = tuple(1 << power for power in range(10, 31, 2))  # B, of the larger of input and output


def rows(bench: Bench) -> Iterator[Row]:
    ranks = 2 if bench.dry else torch.cuda.device_count()
    if ranks < 2:
        row: Row = dict.fromkeys(COLUMNS, "")
        row.update(family="collectives", op="none", notes="one GPU only")
        yield row
        return
    if not bench.dry:
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29577")
        spawn(_rank, (ranks, bench.dry, folder), nprocs=ranks)
        yield from json.loads((Path(folder) / "rows.json").read_text())


def _rank(rank: int, ranks: int, dry: bool, folder: str) -> None:
    if not dry:
        torch.cuda.set_device(rank)
    device = torch.device("cpu") if dry else torch.device("cuda", rank)
    dist.init_process_group("gloo" if dry else "nccl", rank=rank, world_size=ranks)
    found: list[Row] = []
    for size in SIZES[:2] if dry else SIZES:
        for op, run in _operations(size // 2, ranks, device).items():
            found.append(_row(op, size, ranks, run, dry))
    if rank == 0:
        (Path(folder) / "rows.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def _operations(elements: int, ranks: int, device: torch.device) -> dict[str, Callable[[], Any]]:
    whole = torch.zeros(elements, dtype=torch.bfloat16, device=device)
    other = torch.zeros(elements, dtype=torch.bfloat16, device=device)
    part = torch.zeros(elements // ranks, dtype=torch.bfloat16, device=device)
    return {
        "all_reduce": lambda: dist.all_reduce(whole),
        "all_gather": lambda: dist.all_gather_into_tensor(whole, part),
        "reduce_scatter": lambda: dist.reduce_scatter_tensor(part, whole),
        "broadcast": lambda: dist.broadcast(whole, 0),
        "all_to_all": lambda: dist.all_to_all_single(other, whole),
    }


def _row(op: str, size: int, ranks: int, run: Callable[[], Any], dry: bool) -> Row:
    row: Row = dict.fromkeys(COLUMNS, "")
    row.update(family="collectives", op=op, shapes=f"{ranks} ranks", dtype="bfloat16", bytes=size, flops=0)
    try:
        row["seconds_warm"] = "" if _warmed(run, dry) else f"{_seconds(run, 20 if size < 1 << 26 else 8):.4g}"
    except Exception as error:
        row["notes"] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return row


def _warmed(run: Callable[[], Any], dry: bool) -> bool:
    """Run three times; true where there is nothing to time it by."""
    for _ in range(1 if dry else 3):
        run()
    return dry


def _seconds(run: Callable[[], Any], repeats: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    dist.barrier()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) * 1e-3 / repeats
