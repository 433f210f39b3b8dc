"""A Run on disk: a folder with run.json and tables/*.parquet. Written whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from membound import folders
from membound.errors import InputError, RecordError, UnknownNameError
from membound.run import quantities
from membound.run.schema import SCHEMA, Fits, Missing, Origin, Run, Value

_DOCUMENT: Final = "run.json"
# A table's name is its file's name: nothing that could lead out of the folder.
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def write(run: Run, folder: Path) -> None:
    """Write `run` as `folder`, in place of a Run that is there already.

    Raises `StorageError`, and `InputError` for a folder that holds something else or for values that the registry does not know.
    """
    quantities.validate(run.values)
    for name in run.tables:
        if not _NAME.fullmatch(name):
            raise InputError("tables", name, "name a table with small letters, digits, '_', '-' and '.'")
    _check_place(folder)
    with folders.whole(folder, replace=True) as draft:
        (draft / "tables").mkdir()
        for name, table in run.tables.items():
            pq.write_table(table, draft / "tables" / f"{name}.parquet", compression="zstd", compression_level=1)
        document = {**run.document(), "tables": sorted(run.tables)}
        (draft / _DOCUMENT).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def read(folder: Path) -> Run:
    """The Run in `folder`. Raises `RecordError` if it is damaged, foreign, or of another schema."""
    try:
        document: dict[str, Any] = json.loads((folder / _DOCUMENT).read_text())
        if document.get("schema") != SCHEMA:
            raise RecordError(f"{folder}: run schema {document.get('schema')}, this membound reads {SCHEMA}")
        values = {str(name): _value(entry) for name, entry in document["values"].items()}
        quantities.validate(values)
        tables = {name: _table(folder, name) for name in document["tables"]}
        about = document.get("about", {})
        return Run(_origin(document), _mapping(document["job"]), _mapping(document["machine"]), _fits(document["fits"]), values, tables, about)
    except UnknownNameError as error:
        raise RecordError(f"{folder}: holds {error.value!r}, which this membound does not know") from None
    except (InputError, OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise RecordError(f"{folder}: not a readable run ({error})") from None


def _check_place(folder: Path) -> None:
    try:
        foreign = folder.is_dir() and not (folder / _DOCUMENT).is_file() and any(folder.iterdir())
    except OSError as error:
        raise folders.disk_error(folder, error) from None
    if foreign:
        raise InputError("out", str(folder), "this folder holds something that is no run: choose another")


def _origin(document: dict[str, Any]) -> Origin:
    origin: Origin = document["origin"]
    if origin not in get_args(Origin):
        raise ValueError(f"origin {origin!r}")
    return origin


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object was expected, not {value!r:.40}")
    return value


def _fits(entry: dict[str, Any]) -> Fits:
    if not isinstance(entry["gpu"], bool) or not isinstance(entry["host"], bool):
        raise TypeError("fits must be true or false")
    return Fits(entry["gpu"], entry["host"], entry["why"])


def _value(entry: dict[str, Any]) -> Value | Missing:
    if "missing" in entry:
        return Missing(str(entry["missing"]))
    return Value(float(entry["value"]), str(entry["unit"]), float(entry["low"]), float(entry["high"]), str(entry["basis"]))


def _table(folder: Path, name: str) -> pa.Table:
    if not _NAME.fullmatch(name):
        raise ValueError(f"table {name!r}")
    # `read_table` imports what reads data sets of many files, a tenth of a second.
    with pq.ParquetFile(folder / "tables" / f"{name}.parquet") as file:
        return file.read()
