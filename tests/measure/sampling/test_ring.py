"""The ring: one writer that never waits, readers that know what they missed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membound.measure.control import Control
from membound.measure.ring import NOT_READ, Layout, Ring

CURVES = 3


def fill(ring: Ring, first: int, rows: int) -> None:
    """Rows whose every number says which row it is."""
    for row in range(first, first + rows):
        ring.write(tick=row, late=row, took=NOT_READ, key=0, fresh=row % 8, values=[row, row + 0.5, math.nan], codes=[0, 0, 7])


@pytest.mark.parametrize("curves", range(1, 30))
def test_the_writers_layout_is_the_readers(curves: int) -> None:
    assert Layout(curves).struct.size == Layout(curves).dtype.itemsize


@settings(max_examples=60, deadline=None)
@given(capacity=st.integers(1, 20), bursts=st.lists(st.integers(0, 30), max_size=8))
def test_rows_come_in_order_once_and_the_missed_are_counted(tmp_path_factory: pytest.TempPathFactory, capacity: int, bursts: list[int]) -> None:
    ring = Ring.create(tmp_path_factory.mktemp("ring") / "gpu", CURVES, capacity)
    written, following, seen, missed = 0, 0, [], 0
    for burst in bursts:
        fill(ring, written, burst)
        written += burst
        rows, lost = ring.read(following)
        following += len(rows) + lost
        seen += rows["tick"].tolist()
        missed += lost
        assert rows["values"][:, 1].tolist() == [row + 0.5 for row in rows["tick"].tolist()]
    assert seen == sorted(set(seen))
    assert len(seen) + missed == written == following
    assert missed == sum(max(0, burst - capacity) for burst in bursts)
    ring.close()


def test_a_row_that_is_half_written_is_not_read(tmp_path: Path) -> None:
    ring = Ring.create(tmp_path / "gpu", CURVES, 8)
    fill(ring, 0, 4)
    size = Layout(CURVES).dtype.itemsize
    with open(tmp_path / "gpu", "r+b") as file:
        # The second number of row 2 is not there yet.
        file.seek(64 + 3 * size - 8)
        file.write(b"\xff" * 8)
    rows, lost = ring.read(0)
    assert rows["tick"].tolist() == [0, 1, 3]
    assert lost == 1
    ring.close()


def test_a_ring_outlives_its_writer(tmp_path: Path) -> None:
    writer = Ring.create(tmp_path / "gpu", CURVES, 8)
    fill(writer, 0, 5)
    writer.close()
    heir = Ring(tmp_path / "gpu")
    fill(heir, 5, 2)
    rows, lost = heir.read(3)
    assert rows["tick"].tolist() == [3, 4, 5, 6]
    assert lost == 0
    assert np.isnan(rows["values"][:, 2]).all()
    heir.close()


def test_a_file_that_is_no_ring_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gpu").write_bytes(bytes(4096))
    with pytest.raises(ValueError, match="no ring"):
        Ring(tmp_path / "gpu")


def test_the_page_keeps_each_integer_and_the_last_whole_text(tmp_path: Path) -> None:
    control = Control.create(tmp_path)
    other = Control.open(tmp_path)
    control.set("epoch_ns", 2**62)
    assert other.get("epoch_ns") == 2**62
    assert other.told() == {}
    control.tell({"sensors": list(range(1000))})
    assert other.told() == {"sensors": list(range(1000))}
    # A writer that is killed over the text leaves its version odd: there is no text then, rather than half of one.
    control.set("text_version", control.get("text_version") + 1)
    assert other.told() == {}
    control.close()
    other.close()
