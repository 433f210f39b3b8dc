"""Pack measured kernels of the aiconfigurator project into the compact files that membound ships.

    python validation/pack_kernels.py FOLDER     FOLDER holds gemm.parquet, attention_forward.parquet and nccl.csv

What the files are and where they come from: membound/cost/data/SOURCES.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from membound.cost import calibration, collectives
from membound.cost.tiles import Rates
from membound.spec import catalogue

# The stack that calls the library as PyTorch does, F.linear with cuBLAS behind it, and of those the one that all GPUs but the A100 share.
MATMULS = {"a100": "sglang/0.5.10", "h100": "vllm/0.24.0", "h200": "vllm/0.24.0", "b200": "vllm/0.24.0", "l40s": "vllm/0.24.0"}
NAMES = {"a100": "a100-sxm-80gb", "h100": "h100-sxm", "h200": "h200", "b200": "b200", "l40s": "l40s"}


def rates(gpu: str) -> np.ndarray:
    """Peak, bandwidth, SMs, clock and L2 of the measured GPU, from the catalogue."""
    of = Rates.of(catalogue.machine(NAMES[gpu]).gpu, "bf16")
    return np.array([of.arithmetic, of.hbm, of.sms, of.clock, of.l2])


def matmul(folder: Path) -> dict[str, np.ndarray]:
    """One grid of times for each GPU over the same m, n and k."""
    table = pq.read_table(folder / "gemm.parquet")
    table = table.filter(pc.equal(table["dtype"], "bfloat16"))
    axes = {axis: np.unique(table[axis].to_numpy()) for axis in "mnk"}
    packed: dict[str, np.ndarray] = {axis: values.astype(np.int32) for axis, values in axes.items()}
    for gpu, stack in MATMULS.items():
        rows = table.filter(pc.and_(pc.equal(table["gpu"], gpu), pc.equal(table["stack"], stack)))
        seconds = np.full([len(values) for values in axes.values()], np.nan)
        seconds[tuple(np.searchsorted(axes[axis], rows[axis].to_numpy()) for axis in "mnk")] = rows["latency_ms"].to_numpy() * 1e-3
        packed[gpu] = calibration.encode(seconds)
        packed[f"{gpu}_rates"] = rates(gpu)
    return packed


def attention(folder: Path) -> dict[str, np.ndarray]:
    """For each GPU its rows as six columns; rows of few tokens, and heads that no model in the catalogue has, left out."""
    table = pq.read_table(folder / "attention_forward.parquet")
    packed: dict[str, np.ndarray] = {}
    for gpu, stack in MATMULS.items():
        rows = table.filter(pc.and_(pc.equal(table["gpu"], gpu), pc.equal(table["stack"], stack)))
        rows = rows.filter(pc.and_(pc.greater_equal(rows["seq_len"], 64), pc.is_in(rows["head_dim"], pa.array([64, 128, 256]))))
        columns = [rows[name].to_numpy() for name in ("batch_size", "seq_len", "num_heads", "num_kv_heads", "head_dim")]
        packed[gpu] = np.stack([*columns, calibration.encode(rows["latency_ms"].to_numpy() * 1e-3)]).astype(np.int16)
    return packed


def nccl(folder: Path) -> dict[str, np.ndarray]:
    """Times of each board over collectives, ranks and bytes; the newest NCCL where there are several, the mean of repetitions."""
    rows = csv.read_csv(folder / "nccl.csv").to_pylist()
    sizes = np.unique([row["elements"] * 2 for row in rows])
    packed: dict[str, np.ndarray] = {"nbytes": sizes}
    for board in NAMES:
        newest = max(row["stack"] for row in rows if row["gpu"] == board)
        total, count = (np.zeros((len(collectives.KINDS), len(collectives.RANKS), len(sizes))) for _ in range(2))
        for row in rows:
            if (row["gpu"], row["stack"]) == (board, newest):
                at = collectives.KINDS.index(row["collective"]), collectives.RANKS.index(row["num_gpus"]), np.searchsorted(sizes, row["elements"] * 2)
                total[at] += row["latency_ms"] * 1e-3
                count[at] += 1
        packed[board] = calibration.encode(total / count)
    return packed


def main(folder: Path) -> None:
    made: dict[str, Any] = {"matmul": matmul(folder), "attention": attention(folder), "nccl": nccl(folder)}
    for name, arrays in made.items():
        np.savez_compressed(calibration.FOLDER / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
