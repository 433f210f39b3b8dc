"""What the ranks' own allocators said, as curves beside what the driver says of the same GPUs."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa

from membound.measure.evidence import Evidence, Floats
from membound.run.series import CURVE_TABLE

_CURVES: Final = ("allocated", "reserved")


def beside(evidence: Evidence, table: pa.Table) -> pa.Table:
    """The table `gpu` with memory.allocated and memory.reserved: at each time what its rank had last said; null before its first word."""
    times, of = table["time"].to_numpy(), table["gpu"].to_numpy()
    for curve in _CURVES:
        column: Floats = np.full(table.num_rows, np.nan)
        for gpu, (said_at, said) in _said(evidence, curve).items():
            rows = np.flatnonzero(of == gpu)
            last = np.searchsorted(said_at, times[rows], side="right") - 1
            column[rows[last >= 0]] = said[last[last >= 0]]
        table = table.append_column(f"memory.{curve}", pa.array(column, from_pandas=True))
    return table


def origins(evidence: Evidence, curves: pa.Table) -> pa.Table:
    """The table `curves` with rows for both."""
    rows = [
        {
            "table": "gpu",
            "curve": f"memory.{curve}",
            "tier": "torch",
            "source": f"torch.cuda.memory_stats {curve}_bytes.all.current, at the borders of phases and by a thread of the rank",
            "period": evidence.plan.options.period,
            "missing": 0,
            "reason": None,
        }
        for curve in _CURVES
    ]
    return pa.concat_tables([curves, pa.Table.from_pylist(rows, schema=CURVE_TABLE)])


def _said(evidence: Evidence, curve: str) -> dict[int, tuple[Floats, Floats]]:
    """Times and bytes of what each GPU's rank said, by the GPU's number in the table."""
    found = {}
    lone = evidence.gpus[:1] if len(evidence.gpus) == 1 else []
    for rank, lines in evidence.facts("memory").items():
        # One rank and one GPU need no names to find each other.
        gpu = evidence.gpu_of.get(rank, lone[0] if lone else None)
        if gpu is not None:
            found[gpu] = np.array([evidence.seconds(line["t"]) for line in lines]), np.array([float(line[curve]) for line in lines])
    return found
