"""Parquet parts of a recording: small ones each second, joined into larger ones as time goes on. A file is there whole, or not at all.

A part is named by the numbers of the rows that it holds, so that a reader sees which are joined already in another: killing the process that
joins them, at any moment, loses nothing and doubles nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from membound.measure.ring import NOT_READ
from membound.measure.sensors import columns

_NAME: Final = re.compile(r"(gpu|host)\.(\d)\.(\d{12})-(\d{12})\.parquet")
# Parts of each level that are joined into one of the next: seconds into a minute, minutes into ten. What an hour takes is measured by
# benchmarks/sampler.py.
_FAN: Final = (60, 10)
# Shares, rates and watts: seven digits are more than any sensor has. Bytes and Hz stay exact.
_SHORT: Final = {
    "busy", "hbm.read", "hbm.write", "hbm.utilisation", "power", "power.average", "memory.power", "pcie.h2d", "pcie.d2h", "nvlink.sent",
    "nvlink.received", "sm.utilisation", "tensor.utilisation", "memory.busy", "cpu.utilisation", "memory.bandwidth", "nvme.read", "nvme.write",
}  # fmt: skip
# Of these, all but whole per cents have many digits, and stay for a few rows or for one: split by bytes, what hardly changes falls together.
_SPLIT: Final = _SHORT - {"memory.busy"}
# Integers that run on: only their differences are stored. Energy in mJ, as the driver counts it.
_RUNNING: Final = {"tick": "DELTA_BINARY_PACKED", "energy": "DELTA_BINARY_PACKED"}
_MJ: Final = 1e3
CODE: Final = "{}?"
"""Column with the validity codes of a curve."""


@dataclass(frozen=True)
class Part:
    """A file with rows `first` to `last` of `table`."""

    path: Path
    table: str
    level: int
    first: int
    last: int


def parts(folder: Path, table: str) -> list[Part]:
    """The parts of `table`, in order, each row in one of them only."""
    found = [_part(path) for path in folder.glob(f"{table}.*.parquet") if _NAME.fullmatch(path.name)]
    kept: list[Part] = []
    for part in sorted(found, key=lambda part: (part.first, -part.last)):
        if not kept or part.last > kept[-1].last:
            kept.append(part)
    return kept


def _part(path: Path) -> Part:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return Part(path, match[1], int(match[2]), int(match[3]), int(match[4]))


def write(folder: Path, table: str, rows: npt.NDArray[Any]) -> Part:
    """Write `rows` of the ring as a part of the lowest level. Raises `OSError`."""
    first, last = int(rows["number"][0]), int(rows["number"][-1])
    return _write(folder, table, 0, first, last, to_arrow(table, rows))


def join(folder: Path, table: str, everything: bool = False) -> None:
    """Join parts where a level has enough of them; with `everything`, all that are not yet as large as they get. Raises `OSError`."""
    for level, fan in enumerate(_FAN):
        several = [part for part in parts(folder, table) if part.level == level or (everything and part.level < level)]
        if len(several) >= (2 if everything and level == len(_FAN) - 1 else fan):
            _join(folder, table, level + 1, several)


def _join(folder: Path, table: str, level: int, several: list[Part]) -> None:
    joined = pa.concat_tables([pq.read_table(part.path, partitioning=None) for part in several])
    # Each GPU's rows together: what changes seldom then takes next to no room.
    joined = joined.sort_by([("key", "ascending"), ("tick", "ascending")])
    _write(folder, table, level, several[0].first, several[-1].last, joined)
    for part in several:
        part.path.unlink(missing_ok=True)


def _write(folder: Path, table: str, level: int, first: int, last: int, rows: pa.Table) -> Part:
    path = folder / f"{table}.{level}.{first:012d}-{last:012d}.parquet"
    draft = folder / f".{path.name}.draft"
    try:
        split = [name for name in rows.column_names if name in _SPLIT]
        # The other readings repeat: a dictionary of the distinct ones is small.
        repeated = [name for name in rows.column_names if name not in _SPLIT and name not in _RUNNING]
        running = {name: how for name, how in _RUNNING.items() if name in rows.column_names}
        pq.write_table(
            rows, draft, compression="zstd", compression_level=1 if level == 0 else 3,
            use_dictionary=repeated, use_byte_stream_split=split, column_encoding=running,
        )  # fmt: skip
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return Part(path, table, level, first, last)


def to_arrow(table: str, rows: npt.NDArray[Any]) -> pa.Table:
    """Rows of the ring as a table: tick, key, late_us, took_us, fresh, and per curve its value and its validity's code."""
    arrays: dict[str, Any] = {"tick": rows["tick"], "key": rows["key"].astype(np.int16)}
    for name in ("late", "took"):
        arrays[f"{name}_us"] = pa.array(rows[name], mask=rows[name] == NOT_READ)
    arrays["fresh"] = rows["fresh"].astype(np.uint32)
    for slot, curve in enumerate(columns.TABLES[table]):
        codes = np.ascontiguousarray(rows["codes"][:, slot])
        arrays[curve] = pa.array(_stored(curve, rows["values"][:, slot], codes), mask=codes != 0)
        arrays[CODE.format(curve)] = codes
    return pa.table(arrays)


def _stored(curve: str, values: npt.NDArray[Any], codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values in the type that they are stored in."""
    if curve in _RUNNING:
        return np.where(codes == 0, np.rint(values * _MJ), 0).astype(np.int64)
    return values.astype(np.float32 if curve in _SHORT else np.float64)


def values(stored: pa.Table, curve: str) -> pa.ChunkedArray:
    """A curve of a stored table in its SI unit."""
    column = stored[curve].cast(pa.float64())
    return pc.divide(column, _MJ) if curve in _RUNNING else column
