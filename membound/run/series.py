"""The series that a Run may hold: what is sampled, or predicted, over time. Tables by name, columns by curve, in SI units.

    gpu     one row per GPU and 20 ms      `time` (s since the Run began, start of the bin), `gpu` (0 .. all GPUs - 1), curves
    host    one row per node and second    `time`, `node`, curves
    marks   one row per span               `start`, `end` (s; null while open), `rank`, `name`, `step`, `micro`,
                                           `kind` (step, micro-step, phase, mark)
    curves  one row per curve of the Run   where it comes from: see `CURVE_TABLE`

A value that could not be read is null, never 0; `curves` says how many are, and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa

Table = Literal["gpu", "host"]

GPU_PERIOD: Final = 0.02
"""Grid of the table `gpu`, s."""
HOST_PERIOD: Final = 1.0
"""Grid of the table `host`, s."""


@dataclass(frozen=True)
class Curve:
    """One column of a series."""

    name: str
    table: Table
    unit: str
    meaning: str


def _gpu() -> Iterator[Curve]:
    yield Curve("busy", "gpu", "1", "Share of the time with at least one kernel running.")
    yield Curve("hbm.read", "gpu", "B/s", "Bytes read from HBM per second.")
    yield Curve("hbm.write", "gpu", "B/s", "Bytes written to HBM per second.")
    yield Curve("hbm.utilisation", "gpu", "1", "HBM bytes per second, both ways, over the peak at the present memory clock.")
    yield Curve("memory.used", "gpu", "B", "Memory in use as the driver counts it.")
    yield Curve("memory.reserved", "gpu", "B", "Memory that PyTorch's allocator holds.")
    yield Curve("memory.allocated", "gpu", "B", "Memory in live blocks of PyTorch's allocator.")
    yield Curve("power", "gpu", "W", "Power of the board.")
    yield Curve("power.average", "gpu", "W", "Power of the board, mean of the last second as the driver forms it.")
    yield Curve("energy", "gpu", "J", "Energy that the board has used since its driver was loaded: a counter.")
    yield Curve("memory.power", "gpu", "W", "Power of the board's memory.")
    yield Curve("clock.core", "gpu", "Hz", "Core clock.")
    yield Curve("clock.memory", "gpu", "Hz", "Memory clock.")
    yield Curve("temperature.gpu", "gpu", "degC", "Temperature of the die.")
    yield Curve("temperature.hbm", "gpu", "degC", "Temperature of the memory.")
    yield Curve("pcie.h2d", "gpu", "B/s", "Bytes from the host to the GPU per second.")
    yield Curve("pcie.d2h", "gpu", "B/s", "Bytes from the GPU to the host per second.")
    yield Curve("nvlink.sent", "gpu", "B/s", "Bytes that the GPU sends over NVLink per second.")
    yield Curve("nvlink.received", "gpu", "B/s", "Bytes that the GPU receives over NVLink per second.")
    yield Curve("sm.utilisation", "gpu", "1", "Share of the multiprocessors with at least one warp, mean over time.")
    yield Curve("tensor.utilisation", "gpu", "1", "Share of the time in which the tensor cores' pipes were at work.")
    yield Curve("memory.busy", "gpu", "1", "Share of the time in which memory was read or written at all: a flag of the driver, no bandwidth.")
    yield Curve("throttle", "gpu", "bits", "Clock event reasons, the driver's own bits.")


def _host() -> Iterator[Curve]:
    yield Curve("cpu.utilisation", "host", "1", "Share of the node's cores in use.")
    yield Curve("memory.used", "host", "B", "Host memory in use, without page cache.")
    yield Curve("memory.pinned", "host", "B", "Page-locked memory that PyTorch holds on the node.")
    yield Curve("memory.bandwidth", "host", "B/s", "Traffic between processors and DIMMs.")
    yield Curve("power", "host", "W", "Power of the processors' packages and DIMMs.")
    yield Curve("nvme.read", "host", "B/s", "Bytes read from local drives per second.")
    yield Curve("nvme.write", "host", "B/s", "Bytes written to local drives per second.")


CURVES: Final[tuple[Curve, ...]] = (*_gpu(), *_host())

CURVE_TABLE: Final = pa.schema(
    [
        ("table", pa.string()),
        ("curve", pa.string()),
        ("tier", pa.string()),  # pm, gpm, nvml, nvml_busy, kernel, torch, law, ...: the kind of origin
        ("source", pa.string()),  # the sensor or the law in words
        ("period", pa.float64()),  # s; how often the source itself has something new
        ("missing", pa.int64()),  # samples that could not be read
        ("reason", pa.string()),  # why, where any are missing
    ]
)
"""Columns of the table `curves`."""

MARK_TABLE: Final = pa.schema(
    [
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("rank", pa.int32()),
        ("kind", pa.string()),
        ("name", pa.string()),
        ("step", pa.int32()),
        ("micro", pa.int32()),
    ]
)
"""Columns of the table `marks`. Times in s since the Run began."""


def curve(table: str, name: str) -> Curve:
    """The curve `name` of `table`. Raises `KeyError`."""
    return _BY_NAME[table, name]


_BY_NAME: Final[dict[tuple[str, str], Curve]] = {(each.table, each.name): each for each in CURVES}
