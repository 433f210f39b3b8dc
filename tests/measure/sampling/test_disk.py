"""A disk that is full: what cannot be stored waits, and nothing is lost if room comes; the end of the manifest has its room kept."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from membound.errors import StorageError
from membound.measure import manifest, parts
from membound.measure.control import Control, State
from membound.measure.drain import Drain
from membound.measure.recording import Recording, Source, read
from membound.measure.ring import Ring
from membound.measure.sensors import columns
from tests.measure.sampling.conftest import H100

PLAN = {"source": {}, "boot": "boot", "period": 0.02, "host_period": 1.0, "hbm": "auto"}


class Disk:
    """Writes parts until it is full."""

    def __init__(self) -> None:
        self.full = False

    def write(self, folder: Path, table: str, rows: Any) -> parts.Part:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return parts.write(folder, table, rows)


class Desk:
    """A drain with a ring that the test fills."""

    def __init__(self, tmp_path: Path, capacity: int) -> None:
        self.folder, shared = tmp_path / "recording", tmp_path / "shared"
        self.folder.mkdir()
        shared.mkdir()
        self.control = Control.create(shared)
        self.control.set("state", State.ENDED)
        self.control.set("epoch_ns", 1)
        self.ring = Ring.create(shared / "gpu", len(columns.GPU), capacity)
        self.disk = Disk()
        self.ticks = 0
        self.drain = Drain(self.folder, {**PLAN, "shared": str(shared)}, self.control, self.disk.write)

    def sample(self, rows: int) -> None:
        for _ in range(rows):
            self.ring.write(self.ticks, 0, 0, 0, 0, [1.0] * len(columns.GPU), [0] * len(columns.GPU))
            self.ticks += 1

    def stored(self) -> list[int]:
        return [row for part in parts.parts(self.folder, "gpu") for row in range(part.first, part.last + 1)]


def test_rows_wait_for_room(tmp_path: Path) -> None:
    desk = Desk(tmp_path, capacity=20)
    desk.sample(10)
    desk.drain.step()
    assert desk.stored() == list(range(10))
    desk.disk.full = True
    # Five times what the ring holds: the drain keeps it.
    for _ in range(10):
        desk.sample(10)
        desk.drain.step()
    assert desk.stored() == list(range(10))
    assert desk.control.get("disk_full_ns") > 0
    desk.disk.full = False
    desk.drain.step()
    assert desk.stored() == list(range(110))
    assert desk.control.get("rows_lost") == 0


def test_a_disk_that_stays_full_keeps_what_it_has_and_the_manifest_says_so(tmp_path: Path) -> None:
    desk = Desk(tmp_path, capacity=20)
    desk.sample(10)
    desk.drain.step()
    desk.disk.full = True
    desk.sample(10)
    desk.drain.step()
    desk.drain.finish("stopped")
    assert desk.stored() == list(range(10))
    document = manifest.read(desk.folder)
    assert document["ended"] == "stopped"
    assert document["disk_full_at_s"] is not None


def test_many_parts_become_few_and_no_row_is_lost_or_doubled(tmp_path: Path) -> None:
    desk = Desk(tmp_path, capacity=50)
    for _ in range(135):
        desk.sample(3)
        desk.drain.step()
    assert len(parts.parts(desk.folder, "gpu")) < 20
    assert desk.stored() == list(range(405))
    desk.drain.finish("stopped")
    assert len(list(desk.folder.glob("gpu.*.parquet"))) == 1
    assert desk.stored() == list(range(405))


def test_parts_that_were_joined_already_are_not_read_twice(tmp_path: Path) -> None:
    desk = Desk(tmp_path, capacity=50)
    kept = {}
    for _ in range(3):
        desk.sample(5)
        desk.drain.step()
    for path in desk.folder.glob("gpu.*.parquet"):
        kept[path] = path.read_bytes()
    desk.drain.finish("stopped")
    # As if it had been killed between joining them and deleting them.
    for path, data in kept.items():
        path.write_bytes(data)
    assert desk.stored() == list(range(15))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> Path:
    """Take all room that is left in `place`."""
    filler = place / "filler"
    room = os.statvfs(place)
    with open(filler, "wb", buffering=0) as file:
        for _ in range(room.f_bavail):
            file.write(bytes(room.f_bsize))
    assert os.statvfs(place).f_bavail == 0
    return filler


@pytest.mark.parametrize("frees", [True, False])
def test_a_real_disk_that_fills_up(small_disk: Path, frees: bool) -> None:
    folder = small_disk / "r"
    with Recording(folder, Source(H100), learn=0) as recording:
        time.sleep(1.5)
        filler = fill(small_disk)
        time.sleep(2.5)
        if frees:
            filler.unlink()
            time.sleep(1.5)
        before_end = (time.monotonic_ns() - recording.epoch_ns) * 1e-9
    samples = read(folder)
    assert samples.ended == "stopped"
    assert 1.0 < samples.manifest["disk_full_at_s"] < before_end
    assert samples.manifest["rows_lost"] == 0
    assert samples.manifest["damaged_parts"] == []
    # Even if no room came: what was kept free holds the last seconds.
    assert samples.tables["gpu"]["time"].to_numpy().max() > before_end - 1.0


def test_a_disk_that_is_full_at_the_start_is_one_line(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(StorageError, match="the disk is full"), Recording(small_disk / "r", Source(H100), learn=0):
        pass
