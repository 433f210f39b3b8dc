"""The trace cache: the same content is found again, anything else is not, and no trouble with the disk stops anybody."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from membound.errors import InputError
from membound.spec.job import Job
from membound.trace import cache
from membound.trace.builder import TraceBuilder
from membound.trace.cache import TraceCache
from membound.trace.schema import Trace

CONFIG = {"model_type": "llama", "hidden_size": 64}
KEY = "a" * 64


def job(**changes: Any) -> Job:
    """A Job with `changes` to its recipe, or to itself."""
    own = {name: changes.pop(name) for name in ("model", "data", "gpus", "machine") if name in changes}
    return Job.model_validate({"model": "tiny", "data": {"seq_len": 8}, "recipe": changes, **own})


def small_trace(accumulation: int = 1, allocations: int = 3) -> Trace:
    """A Trace of a few allocations."""
    builder = TraceBuilder()
    for size in range(1, allocations + 1):
        builder.free(builder.alloc(0, size * 512))
    numbers = {"rank": 0, "ranks": 1, "ranks_per_node": 1, "steps": 2, "parameters": 1, "trained": 1}
    micro_steps = min(accumulation, cache.MICRO_STEPS)
    return builder.finish(job={}, versions={}, micro_steps=micro_steps, repeat=1, **numbers)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def kept(tmp_path: Path, warnings: list[str]) -> TraceCache:
    return TraceCache(tmp_path / "cache", warn=warnings.append)


class TestKey:
    @pytest.mark.parametrize(
        "same", [{"machine": "h200"}, {"model": "tiny-gpt2"}, {"accumulation": 1}], ids=["machine", "name of the model", "what is default"]
    )
    def test_what_does_not_shape_the_trace_is_left_out(self, same: dict[str, Any]) -> None:
        assert cache.key(job(**same), CONFIG, 8) == cache.key(job(), CONFIG, 8)

    def test_accumulation_counts_as_far_as_it_is_captured(self) -> None:
        keys = [cache.key(job(accumulation=count), CONFIG, 8) for count in (1, 2, 3, 4, 64)]
        assert len(set(keys)) == 3
        assert len(set(keys[2:])) == 1

    @pytest.mark.parametrize(
        "other",
        [
            {"micro_batch": 2},
            {"precision": "bf16"},
            {"method": "lora"},
            {"method": "lora", "lora": {"rank": 4}},
            {"recompute": "full"},
            {"data": {"seq_len": 16}},
            {"data": {"lengths": "alpaca", "max_length": 8}},
            {"gpus": 2, "engine": "ddp"},
            {"gpus": 4, "engine": "ddp"},
            {"gpus": 2, "engine": "fsdp"},
        ],
    )
    def test_what_shapes_the_trace_counts(self, other: dict[str, Any]) -> None:
        assert cache.key(job(**other), CONFIG, 8) != cache.key(job(), CONFIG, 8)

    def test_the_models_content_counts(self) -> None:
        assert cache.key(job(), {**CONFIG, "hidden_size": 128}, 8) != cache.key(job(), CONFIG, 8)

    def test_ranks_per_node_count_as_far_as_there_are_ranks(self) -> None:
        two = job(gpus=2, engine="ddp")
        assert cache.key(two, CONFIG, 8) == cache.key(two, CONFIG, 2) != cache.key(two, CONFIG, 1)

    def test_the_content_of_a_deepspeed_file_counts_not_its_path(self, tmp_path: Path) -> None:
        keys = []
        for name, stage in (("a.json", 1), ("b.json", 1), ("a.json", 2)):
            (tmp_path / name).write_text(json.dumps({"zero_optimization": {"stage": stage}}))
            keys.append(cache.key(job(engine="deepspeed", deepspeed_config=str(tmp_path / name)), CONFIG, 8))
        assert keys[0] == keys[1] != keys[2]

    def test_versions_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = cache.key(job(), CONFIG, 8)
        monkeypatch.setattr(cache.packages, "installed", lambda: {"torch": "0.0"})
        assert cache.key(job(), CONFIG, 8) != before

    def test_our_own_code_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = cache.key(job(), CONFIG, 8)
        monkeypatch.setattr(cache.sources, "digest", lambda *parts: "other")
        assert cache.key(job(), CONFIG, 8) != before

    def test_code_that_is_not_there_cannot_be_watched(self) -> None:
        with pytest.raises(AssertionError, match="spec/jobs"):
            cache.sources.digest("spec/job.py", "spec/jobs.py")


class TestKeeping:
    def test_what_is_put_is_got(self, kept: TraceCache) -> None:
        trace = small_trace()
        assert kept.get(KEY, job()) is None
        kept.put(KEY, trace)
        found = kept.get(KEY, job())
        assert found is not None
        assert all(np.array_equal(found.storages[name], trace.storages[name]) for name in trace.storages)
        assert kept.usage()[0] == 1

    def test_it_comes_as_the_trace_of_who_asks(self, kept: TraceCache) -> None:
        kept.put(KEY, small_trace(accumulation=4))
        found = kept.get(KEY, job(accumulation=10, machine="h200"))
        assert found is not None
        assert (found.header.micro_steps, found.header.repeat, found.header.job["machine"]) == (3, 8, "h200")

    @pytest.mark.parametrize("name", ["trace/header.json", "trace/instructions.parquet", "trace/operands.parquet", "sums.json"])
    @pytest.mark.parametrize("damage", ["gone", "short", "flipped"])
    def test_a_damaged_entry_is_removed_and_made_again(self, kept: TraceCache, warnings: list[str], name: str, damage: str) -> None:
        kept.put(KEY, small_trace())
        file = kept.folder / "traces" / KEY / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        match damage:
            case "gone":
                file.unlink()
            case "short":
                file.write_bytes(content[: len(content) // 2])
            case "flipped":
                file.write_bytes(content)
        assert kept.get(KEY, job()) is None
        assert kept.usage() == (0, 0)
        kept.put(KEY, small_trace())
        assert kept.get(KEY, job()) is not None
        assert warnings == []

    def test_many_at_once(self, kept: TraceCache, warnings: list[str]) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: kept.put(KEY, small_trace(allocations=50)), range(16)))
            found = list(pool.map(lambda _: kept.get(KEY, job()), range(16)))
        assert all(trace is not None for trace in found)
        assert [path.name for path in (kept.folder / "traces").iterdir()] == [KEY]
        assert warnings == []


class TestCap:
    def test_the_longest_unused_goes_first(self, tmp_path: Path) -> None:
        roomy = TraceCache(tmp_path)
        for age, name in ((300, "old"), (200, "used"), (100, "new")):
            roomy.put(name, small_trace())
            stamp = os.stat(tmp_path).st_mtime - age
            os.utime(tmp_path / "traces" / name, (stamp, stamp))
        size = roomy.usage()[1] // 3
        assert roomy.get("old", job()) is not None  # and so it is the last used
        TraceCache(tmp_path, cap=size * 3.5).put("last", small_trace())
        assert {path.name for path in (tmp_path / "traces").iterdir()} == {"old", "new", "last"}

    def test_what_was_just_put_stays_whatever_its_size(self, tmp_path: Path) -> None:
        TraceCache(tmp_path, cap=1).put(KEY, small_trace())
        assert TraceCache(tmp_path).get(KEY, job()) is not None

    def test_abandoned_drafts_are_swept(self, kept: TraceCache) -> None:
        draft = kept.folder / "traces" / ".draft-of-somebody"
        draft.mkdir(parents=True)
        os.utime(draft, (0, 0))
        kept.put(KEY, small_trace())
        assert not draft.exists()


class TestTrouble:
    def test_a_disk_that_refuses_is_a_warning(self, tmp_path: Path, warnings: list[str]) -> None:
        (tmp_path / "file").write_text("")
        refused = TraceCache(tmp_path / "file" / "cache", warn=warnings.append)
        refused.put(KEY, small_trace())
        assert refused.get(KEY, job()) is None
        assert len(warnings) == 1
        assert "the trace is not kept" in warnings[0]

    def test_a_full_disk_leaves_nothing_half(self, kept: TraceCache, warnings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("pyarrow.parquet.write_table", full)
        kept.put(KEY, small_trace())
        assert list((kept.folder / "traces").iterdir()) == []
        assert "the disk is full" in warnings[0]

    def test_the_folder_is_the_users_choice(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("MEMBOUND_CACHE", str(tmp_path))
        assert cache.default_folder() == tmp_path
        monkeypatch.delenv("MEMBOUND_CACHE")
        monkeypatch.setenv("XDG_CACHE_HOME", "/var/x")
        monkeypatch.setattr("sys.platform", "linux")
        assert cache.default_folder() == Path("/var/x/membound")

    def test_no_home_is_an_input_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def homeless(path: Path) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("MEMBOUND_CACHE")
        monkeypatch.setattr(Path, "expanduser", homeless)
        with pytest.raises(InputError, match="set MEMBOUND_CACHE"):
            cache.default_folder()
