"""A Run on disk: what is read is what was written, and nothing half-written or foreign is taken for a Run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from membound.errors import InputError, RecordError, StorageError, UnknownNameError
from membound.run import store
from membound.run.schema import Fits, Missing, Run, Value

RUN = Run(
    origin="predicted",
    job={"model": "tiny", "gpus": 2},
    machine={"name": "hgx-h100"},
    fits=Fits(True, False, "each node needs more"),
    values={"gpu.memory.used.peak": Value(2.0, "B", 1.0, 3.0, "replay"), "step.time": Missing("not priced")},
    tables={"memory.timeline": pa.table({"allocated_B": [1, 2, 3]}), "memory.holdings": pa.table({"module": ["a", "b"]})},
    about={"versions": {"torch": "2.13"}},
)


def left_behind(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_reads_what_was_written(tmp_path: Path) -> None:
    store.write(RUN, tmp_path / "deep" / "run")
    assert store.read(tmp_path / "deep" / "run") == RUN
    assert left_behind(tmp_path / "deep") == []


def test_a_run_takes_the_place_of_a_run(tmp_path: Path) -> None:
    store.write(RUN, tmp_path / "run")
    other = replace(RUN, tables={}, about={})
    store.write(other, tmp_path / "run")
    assert store.read(tmp_path / "run") == other
    assert left_behind(tmp_path) == []


def test_an_empty_folder_is_taken_and_a_full_one_left_alone(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    store.write(RUN, tmp_path / "empty")
    assert store.read(tmp_path / "empty") == RUN
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(InputError, match="choose another"):
        store.write(RUN, tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "cat"


def test_an_interrupted_write_leaves_the_old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(RUN, tmp_path / "run")

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.write(replace(RUN, about={}), tmp_path / "run")
    assert store.read(tmp_path / "run") == RUN
    assert left_behind(tmp_path) == []


def test_what_the_disk_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file"):
        store.write(RUN, tmp_path / "file" / "run")


def test_values_are_checked_before_they_are_written(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        store.write(replace(RUN, values={"speed": Missing("no")}), tmp_path / "run")
    with pytest.raises(InputError, match="name a table"):
        store.write(replace(RUN, tables={"../escape": pa.table({"a": [1]})}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def damaged(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        document = json.loads((folder / "run.json").read_text())
        change(document)
        (folder / "run.json").write_text(json.dumps(document))

    return damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no document": lambda folder: (folder / "run.json").unlink(),
    "cut short": lambda folder: (folder / "run.json").write_text('{"schema": 1, "orig'),
    "not text": lambda folder: (folder / "run.json").write_bytes(b"\xff\xfe\x00"),
    "a list": lambda folder: (folder / "run.json").write_text("[]"),
    "another schema": damaged(lambda d: d.update(schema=99)),
    "another origin": damaged(lambda d: d.update(origin="guessed")),
    "no values": damaged(lambda d: d.pop("values")),
    "unknown quantity": damaged(lambda d: d["values"].update(speed={"missing": "no"})),
    "another unit": damaged(lambda d: d["values"]["gpu.memory.used.peak"].update(unit="GiB")),
    "value is text": damaged(lambda d: d["values"]["gpu.memory.used.peak"].update(value="big")),
    "job is text": damaged(lambda d: d.update(job="tiny")),
    "verdict is text": damaged(lambda d: d["fits"].update(gpu="yes")),
    "table leads out": damaged(lambda d: d.update(tables=["../../run"])),
    "table is gone": lambda folder: (folder / "tables" / "memory.timeline.parquet").unlink(),
    "table is damaged": lambda folder: (folder / "tables" / "memory.timeline.parquet").write_bytes(b"PAR1"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_and_foreign_runs_are_refused(damage: Callable[[Path], object], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    store.write(RUN, folder)
    damage(folder)
    with pytest.raises(RecordError, match="run"):
        store.read(folder)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        store.read(tmp_path / "nowhere")
