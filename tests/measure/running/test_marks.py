"""Marks: written at once, read whatever became of their writer."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from membound.errors import StorageError
from membound.measure import marks
from membound.run.series import MARK_TABLE


def test_spans_come_back_as_the_table_of_marks(tmp_path: Path) -> None:
    epoch = time.monotonic_ns()
    with marks.Marks(marks.file_of(tmp_path, 3)) as notes, notes.span("step", "step 5", 5), notes.span("phase", "forward", 5, 1):
        pass
    table = marks.table(marks.read(tmp_path), epoch)
    assert table.schema == MARK_TABLE
    outer, inner = table.to_pylist()
    assert (outer["rank"], outer["kind"], outer["name"], outer["step"], outer["micro"]) == (3, "step", "step 5", 5, -1)
    assert (inner["kind"], inner["name"], inner["micro"]) == ("phase", "forward", 1)
    assert 0 <= outer["start"] <= inner["start"] <= inner["end"] <= outer["end"]


def test_an_open_span_has_no_end(tmp_path: Path) -> None:
    notes = marks.Marks(marks.file_of(tmp_path, 0))
    notes.begin("phase", "backward", 2, 0)
    (row,) = marks.table(marks.read(tmp_path), 0).to_pylist()
    notes.close()
    assert row["end"] is None


def test_a_span_ends_also_where_its_block_fails(tmp_path: Path) -> None:
    with marks.Marks(marks.file_of(tmp_path, 0)) as notes, pytest.raises(ValueError, match="inside"), notes.span("mark", "own"):
        raise ValueError("inside")
    (row,) = marks.table(marks.read(tmp_path), 0).to_pylist()
    assert row["end"] is not None


def test_the_gpus_own_times_replace_the_hosts(tmp_path: Path) -> None:
    with marks.Marks(marks.file_of(tmp_path, 0)) as notes:
        with notes.span("phase", "forward", 0, 0) as number:
            pass
        notes.note("gpu", spans=[[number, 2_000_000_000, 5_000_000_000]])
    (row,) = marks.table(marks.read(tmp_path), 1_000_000_000).to_pylist()
    assert (row["start"], row["end"]) == (1.0, 4.0)


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_only_the_torn_line_is_lost(tmp_path: Path, cut: int) -> None:
    path = marks.file_of(tmp_path, 0)
    with marks.Marks(path) as notes:
        notes.note("first", value=1)
        notes.note("second", value=2)
    whole = path.read_bytes()
    assert len(whole.splitlines()[1]) > cut
    path.write_bytes(whole[:-cut])
    # Without its newline alone a line is still whole.
    kept = ["first", "second"] if cut == 1 else ["first"]
    assert [line["what"] for line in marks.read(tmp_path)[0]] == kept


def test_threads_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    path = marks.file_of(tmp_path, 0)
    with marks.Marks(path) as notes:
        threads = [threading.Thread(target=lambda: [notes.note("line", text="x" * 500) for _ in range(200)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = [json.loads(text) for text in path.read_text().splitlines()]
    assert len(lines) == 800


def test_lines_wait_until_they_are_in_nobodys_way(tmp_path: Path) -> None:
    path = marks.file_of(tmp_path, 0)
    with marks.Marks(path, patience=60.0) as notes:
        notes.note("first")
        with notes.span("phase", "forward"):
            assert not path.read_text()
        notes.flush()
        kept = [line["what"] for line in marks.parse(path.read_text())]
        assert kept == ["first", "begin", "end"]
        notes.note("last")
    lines = marks.read(tmp_path)[0]
    assert [line["what"] for line in lines] == [*kept, "last"]
    assert [line["t"] for line in lines] == sorted(line["t"] for line in lines)


def test_lines_that_have_waited_for_long_are_written_whatever_the_program_does(tmp_path: Path) -> None:
    path = marks.file_of(tmp_path, 0)
    with marks.Marks(path, patience=0.05) as notes:
        notes.note("only")
        until = time.monotonic() + 30
        while not path.read_text() and time.monotonic() < until:
            time.sleep(0.01)
        assert [line["what"] for line in marks.parse(path.read_text())] == ["only"]


def test_a_disk_that_refused_is_told_with_the_next_line(tmp_path: Path) -> None:
    notes = marks.Marks(Path("/dev/full"), patience=60.0)
    notes.note("lost")
    with pytest.raises(StorageError, match="marks cannot be written"):
        notes.flush()
    with pytest.raises(StorageError, match="marks cannot be written"):
        notes.note("another")
