"""How far laws with constants of their own are off on the measured GPU: products, fused attention, copies to the host, collectives. Medians."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from membound.cost import collectives, pcie
from membound.cost.attention_backward import AttentionBackward
from membound.cost.attention_forward import AttentionForward
from membound.cost.batched_matmul import BatchedMatmul
from membound.cost.law import Kernels, Law, Shape
from membound.cost.matmul import Matmul
from membound.cost.profile import Profile
from membound.spec.machine import Machine
from membound.study.calibration.calls import Row, number, sizes

_LAWS: Final[tuple[Law, ...]] = (Matmul(), BatchedMatmul(), AttentionForward(), AttentionBackward())
# From how many rows on a median is trusted.
_ENOUGH: Final = 5
# Copies that show a link's rate, and those that show how long the smallest takes, B.
_LARGE: Final = 1 << 24
_SMALL: Final = 1 << 12
# Collectives shorter than a MiB show latencies, which hang on more than the links.
_MOVING: Final = 1 << 20


def factors(rows: Sequence[Row], machine: Machine, used: Profile) -> dict[str, float]:
    """Measured over predicted time by law, where enough was measured; `machine` has the GPUs that the collectives ran on.

    `used` is the profile that predictions of `machine` rest on now, whose own factors are taken out again.
    """
    ratios = {name: list(values) for name, values in _ratios(rows, machine)}
    return {
        name: float(f"{statistics.median(values) * used.factor(name):.3g}") for name, values in ratios.items() if len(values) >= _ENOUGH
    }  # fmt: skip


def copy_latency(rows: Iterable[Row]) -> float | None:
    """s; the median of the smallest copies, both ways, back to back; None where none was measured."""
    found = [number(row, "seconds_warm") for row in rows if _pinned(row) and float(row["bytes"]) <= _SMALL]
    times = [seconds for seconds in found if seconds is not None]
    return float(f"{statistics.median(times):.3g}") if times else None


def _ratios(rows: Sequence[Row], machine: Machine) -> Iterator[tuple[str, list[float]]]:
    groups: dict[str, list[float]] = {}
    for row in rows:
        name, predicted = _kernel(row, machine)
        seconds = number(row, "seconds_warm")
        if predicted is not None and seconds is not None:
            groups.setdefault(name, []).append(seconds / predicted)
    yield from groups.items()
    yield "pcie", _copies(rows, machine)
    yield "collectives", _collectives(rows, machine)


def _kernel(row: Row, machine: Machine) -> tuple[str, float | None]:
    """Which factor the row bears on, and its predicted seconds; None where no such law knows it, or TF32 was allowed."""
    law = next((law for law in _LAWS if law.knows(row["op"])), None)
    if law is None or row["family"] not in {"matmul", "bmm", "attention"} or "tf32" in row["notes"] or number(row, "bytes") is None:
        return "", None
    reads, writes = _operands(row)
    flops, nbytes = np.array([float(row["flops"])]), np.array([float(row["bytes"])])
    causal = np.array([int("causal" in row["notes"])])
    kernels = Kernels((row["op"],), (tuple(reads),), (tuple(writes),), flops, nbytes, 0 * nbytes, nbytes, causal)
    plain = "_fp32" if row["dtype"] == "float32" else ""
    name = f"matmul{plain}" if row["family"] != "attention" else f"attention_{'backward' if 'backward' in row['op'] else 'forward'}"
    return name, float(law.price(kernels, machine.gpu).seconds[0])


def _operands(row: Row) -> tuple[list[Shape], list[Shape]]:
    dtype, dims = row["dtype"], sizes(row)
    if row["family"] == "matmul":
        m, n, k = dims
        return [(dtype, (m, k)), (dtype, (k, n))], [(dtype, (m, n))]
    if row["family"] == "bmm":
        batch, m, n, k = dims
        return [(dtype, (batch, m, k)), (dtype, (batch, k, n))], [(dtype, (batch, m, n))]
    batch, tokens, heads, groups, width = dims
    query, key = (dtype, (batch, heads, tokens, width)), (dtype, (batch, groups, tokens, width))
    mask = [(dtype, (batch, heads, tokens, tokens))] if "bias" in row["notes"] else []
    return ([query, query, key, key, *mask, query], [query, key, key]) if "backward" in row["op"] else ([query, key, key, *mask], [query])


def _pinned(row: Row) -> bool:
    return row["family"] == "copy" and row["op"] in {"copy_h2d", "copy_d2h"} and "pinned" in row["notes"] and number(row, "bytes") is not None


def _copies(rows: Iterable[Row], machine: Machine) -> list[float]:
    found = []
    for row in rows:
        seconds = number(row, "seconds_warm")
        if _pinned(row) and seconds is not None and float(row["bytes"]) >= _LARGE:
            found.append(seconds / float(pcie.copy_seconds(np.array([float(row["bytes"])]), np.array([True]), machine, 1)[0, 0]))
    return found


def _collectives(rows: Iterable[Row], machine: Machine) -> list[float]:
    """All kinds and sizes, among as many GPUs as took part."""
    found = []
    for row in rows:
        seconds, nbytes = number(row, "seconds_warm"), number(row, "bytes")
        if row["family"] != "collectives" or seconds is None or nbytes is None or nbytes < _MOVING:
            continue
        ranks = int(row["shapes"].split()[0])
        if ranks <= machine.gpus:
            found.append(seconds / float(collectives.spent([row["op"]], np.array([nbytes]), np.array([float(ranks)]), machine)[0, 0]))
    return found
