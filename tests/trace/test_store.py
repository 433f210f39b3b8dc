"""A Trace on disk: what is read is what was written, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from membound.errors import RecordError, StorageError
from membound.trace import store
from membound.trace.builder import TraceBuilder
from membound.trace.schema import KIND, PLACE, Trace


@pytest.fixture
def trace() -> Trace:
    builder = TraceBuilder()
    held = builder.alloc(PLACE["gpu"], 1000)
    row = builder.add(KIND["kernel"], builder.ops.code("aten.mm.default"), flops=2.0)
    builder.operand(row, 1, held, 1000, builder.shapes.code("bfloat16[500]"))
    builder.free(held)
    return builder.finish(
        job={"model": "tiny"}, versions={"torch": "2.13"}, rank=0, ranks=1, ranks_per_node=1, steps=1, micro_steps=1, repeat=1,
        parameters=7, trained=7,
    )  # fmt: skip


def same(one: Trace, other: Trace) -> bool:
    tables = ("instructions", "operands", "storages")
    columns = [(getattr(one, table), getattr(other, table)) for table in tables]
    equal = all(np.array_equal(a[name], b[name]) and a[name].dtype == b[name].dtype and list(a) == list(b) for a, b in columns for name in a)
    return one.header == other.header and equal


def test_reads_what_was_written(trace: Trace, tmp_path: Path) -> None:
    store.write(trace, tmp_path / "a" / "trace")
    assert same(store.read(tmp_path / "a" / "trace"), trace)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["trace"]


def test_an_empty_trace_is_a_trace(tmp_path: Path) -> None:
    header = {"rank": 0, "ranks": 1, "ranks_per_node": 1, "steps": 0, "micro_steps": 0, "repeat": 1, "parameters": 0, "trained": 0}
    empty = TraceBuilder().finish(job={}, versions={}, **header)
    store.write(empty, tmp_path / "trace")
    assert same(store.read(tmp_path / "trace"), empty)


def test_the_first_of_two_writers_stands(trace: Trace, tmp_path: Path) -> None:
    store.write(trace, tmp_path / "trace")
    store.write(trace, tmp_path / "trace")
    assert same(store.read(tmp_path / "trace"), trace)
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]


def test_what_the_disk_refuses_is_one_line(trace: Trace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file"):
        store.write(trace, tmp_path / "file" / "trace")


@pytest.mark.parametrize("name", ["header.json", "instructions.parquet", "operands.parquet", "storages.parquet"])
def test_damage_is_refused(name: str, trace: Trace, tmp_path: Path) -> None:
    store.write(trace, tmp_path / "trace")
    path = tmp_path / "trace" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RecordError, match="not a readable trace"):
        store.read(tmp_path / "trace")
    path.unlink()
    with pytest.raises(RecordError, match="not a readable trace"):
        store.read(tmp_path / "trace")


def test_another_schema_is_refused(trace: Trace, tmp_path: Path) -> None:
    store.write(trace, tmp_path / "trace")
    header = tmp_path / "trace" / "header.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"schema": 99}))
    with pytest.raises(RecordError, match="capture again"):
        store.read(tmp_path / "trace")
    header.write_text("[]")
    with pytest.raises(RecordError, match="not a readable trace"):
        store.read(tmp_path / "trace")
