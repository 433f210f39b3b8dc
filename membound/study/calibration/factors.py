"""How far laws with constants of their own are off on the measured GPU: products, fused attention, copies to the host, collectives. Medians."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np

from membound.cost import collectives, pcie
from membound.cost.profile import Profile
from membound.spec.machine import Machine
from membound.study.calibration.calls import Row, number
from membound.study.calibration.products import predicted

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
        ours, seconds = predicted(row, machine.gpu), number(row, "seconds_warm")
        if ours is not None and seconds is not None:
            groups.setdefault(_factor(row), []).append(seconds / ours)
    yield from groups.items()
    yield "pcie", _copies(rows, machine)
    yield "collectives", _collectives(rows, machine)


def _factor(row: Row) -> str:
    """Which factor a row of a product or of attention bears on."""
    if row["family"] == "attention":
        return f"attention_{'backward' if 'backward' in row['op'] else 'forward'}"
    return "matmul_fp32" if row["dtype"] == "float32" else "matmul"


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
