"""Arrays kept by content: found again as they were, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from membound.trace.array_cache import ArrayCache
from membound.trace.kept import Kept

KEY = "b" * 64
ARRAYS = {"sizes": np.array([512, -512, 1 << 40]), "reserved": np.arange(1000), "none": np.empty(0, np.int64)}


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def kept(tmp_path: Path, warnings: list[str]) -> ArrayCache:
    return ArrayCache(tmp_path / "cache", warn=warnings.append)


def test_what_is_put_is_got(kept: ArrayCache) -> None:
    assert kept.get(KEY) is None
    kept.put(KEY, ARRAYS)
    found = kept.get(KEY)
    assert found is not None
    assert found.keys() == ARRAYS.keys()
    assert all(np.array_equal(found[name], ARRAYS[name]) and found[name].dtype == np.int64 for name in ARRAYS)
    assert kept.usage()[0] == 1


@pytest.mark.parametrize("damage", ["gone", "short", "flipped"])
def test_a_damaged_entry_is_removed(kept: ArrayCache, damage: str) -> None:
    kept.put(KEY, ARRAYS)
    file = kept.folder / "replays" / KEY / "arrays" / "reserved.parquet"
    content = bytearray(file.read_bytes())
    match damage:
        case "gone":
            file.unlink()
        case "short":
            file.write_bytes(content[:-9])
        case "flipped":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
    assert kept.get(KEY) is None
    assert kept.usage() == (0, 0)


def test_the_longest_unused_goes_first(tmp_path: Path, warnings: list[str]) -> None:
    roomy = ArrayCache(tmp_path)
    roomy.put("first", ARRAYS)
    size = roomy.usage()[1]
    ArrayCache(tmp_path, cap=size * 1.5).put("second", ARRAYS)
    assert roomy.get("first") is None
    assert roomy.get("second") is not None


def test_a_disk_that_refuses_is_a_warning(tmp_path: Path, warnings: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    refused = ArrayCache(tmp_path / "file", warn=warnings.append)
    refused.put(KEY, ARRAYS)
    assert refused.get(KEY) is None
    assert len(warnings) == 1
    assert "a replay is not kept" in warnings[0]


def test_entries_are_counted_only_where_they_may_be_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Path] = []
    real = Kept._entries

    def entries(self: Kept) -> list[Path]:
        counted.append(self.folder)
        return real(self)

    monkeypatch.setattr(Kept, "_entries", entries)
    kept = ArrayCache(tmp_path)
    for number in range(5):
        kept.put(str(number), ARRAYS)
    assert len(counted) == 1
    # A process that knows a smaller limit looks again, and forgets.
    ArrayCache(tmp_path, cap=1).put("last", ARRAYS)
    assert len(counted) == 2
    assert len(list((tmp_path / "replays").iterdir())) == 1
