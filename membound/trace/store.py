"""A Trace on disk: a folder with header.json and three Parquet files. Written whole or not at all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from membound import folders
from membound.errors import RecordError
from membound.trace.schema import INSTRUCTIONS, OPERANDS, SCHEMA, STORAGES, Header, Trace, as_table

_TABLES = {"instructions": INSTRUCTIONS, "operands": OPERANDS, "storages": STORAGES}


def write(trace: Trace, folder: Path) -> None:
    """Write `trace` as `folder`. Raises `StorageError`; an interrupted write leaves nothing behind."""
    with folders.whole(folder) as draft:
        (draft / "header.json").write_text(json.dumps(dataclasses.asdict(trace.header)))
        for name in _TABLES:
            pq.write_table(as_table(getattr(trace, name)), draft / f"{name}.parquet", compression="zstd", compression_level=1)


def read(folder: Path) -> Trace:
    """The Trace in `folder`. Raises `RecordError` if it is not one, or of another schema."""
    try:
        fields: dict[str, Any] = json.loads((folder / "header.json").read_text())
        if fields.get("schema") != SCHEMA:
            raise RecordError(f"{folder}: trace schema {fields.get('schema')}, this membound reads {SCHEMA}: capture again")
        for name in ("ops", "modules", "lines", "shapes", "notes"):
            fields[name] = tuple(fields[name])
        tables = {name: _columns(folder / f"{name}.parquet", types) for name, types in _TABLES.items()}
        return Trace(Header(**fields), **tables)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise RecordError(f"{folder}: not a readable trace ({error})") from None


def _columns(path: Path, types: dict[str, Any]) -> dict[str, Any]:
    # Not read_table: it would import Arrow's datasets and compute kernels, 50 ms of a cached answer.
    table = pq.ParquetFile(path).read()
    return {name: np.asarray(table.column(name)).astype(dtype, copy=False) for name, dtype in types.items()}
