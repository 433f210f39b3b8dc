"""The snapshot opens in PyTorch's own reader, and holds what the Trace holds."""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.report import memory_viewer
from membound.report.arena import Arena, rounded
from membound.trace.schema import CATEGORIES, PLACE, Trace

# The opcodes that the viewer's own reader knows: torch/utils/viz/MemoryViz.js, unpickle().
VIEWER_OPCODES = {
    "APPEND", "APPENDS", "BINFLOAT", "BINGET", "BININT", "BININT1", "BININT2", "BINPUT", "BINUNICODE", "DICT", "EMPTY_DICT", "EMPTY_LIST",
    "EMPTY_TUPLE", "FRAME", "LIST", "LONG1", "LONG_BINGET", "LONG_BINPUT", "MARK", "MEMOIZE", "NEWFALSE", "NEWTRUE", "NONE", "PROTO", "SETITEM",
    "SETITEMS", "SHORT_BINUNICODE", "STOP", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip


@pytest.fixture
def snapshot(trace: Trace) -> dict[str, Any]:
    return memory_viewer.snapshot(trace)


def test_torch_reads_it(snapshot: dict[str, Any]) -> None:
    viz = pytest.importorskip("torch.cuda._memory_viz")
    summary = viz.segsum(snapshot)
    assert "total_allocated: 12.0GiB" in summary
    assert "12 GiB" not in viz.trace(snapshot)
    assert "= cudaMalloc(" in viz.trace(snapshot)
    assert "snapshot.pickle" in viz.trace_plot(snapshot)
    assert "Allocator State History" in viz.segment_plot(snapshot)
    assert "modeling_llama.py" not in viz.memory(snapshot, format_flamegraph=str)  # no activation is alive at the end
    assert "adam.py:178:aten.mm.default" in viz.memory(snapshot, format_flamegraph=str)


def test_the_viewer_page_can_unpickle_it(trace: Trace, tmp_path: Path) -> None:
    memory_viewer.write(trace, tmp_path / "made" / "memory_snapshot.pickle")
    written = (tmp_path / "made" / "memory_snapshot.pickle").read_bytes()
    assert {opcode.name for opcode, _, _ in pickletools.genops(written)} <= VIEWER_OPCODES
    assert written[1] <= 4
    assert pickle.loads(written) == memory_viewer.snapshot(trace)


def test_the_viewer_page_colours_by_category(snapshot: dict[str, Any]) -> None:
    categories = {event["category"] for event in snapshot["device_traces"][0] if "category" in event}
    assert {"weights", "activations", "optimizer", "unknown"} <= categories <= {*CATEGORIES, "unknown"}


def test_every_gpu_block_is_there_and_no_other(trace: Trace, snapshot: dict[str, Any]) -> None:
    events = snapshot["device_traces"][0]
    on_gpu = trace.storages["place"] == PLACE["gpu"]
    assert [event["size"] for event in events if event["action"] == "alloc"] == trace.storages["nbytes"][on_gpu].tolist()
    assert sum(event["action"] == "free_completed" for event in events) == 10
    assert [event["action"] for event in events].count("segment_alloc") == len(snapshot["segments"])


def test_blocks_fill_their_segments_and_lie_in_them(snapshot: dict[str, Any]) -> None:
    assert snapshot["segments"]
    for segment in snapshot["segments"]:
        at = segment["address"]
        for block in segment["blocks"]:
            assert block["address"] == at
            at += block["size"]
        assert at == segment["address"] + segment["total_size"]
    spans = [(segment["address"], segment["address"] + segment["total_size"]) for segment in snapshot["segments"]]
    for event in snapshot["device_traces"][0]:
        if event["action"] == "alloc":
            assert any(start <= event["addr"] and event["addr"] + event["size"] <= end for start, end in spans)


def test_frames_name_code_module_and_phase(snapshot: dict[str, Any]) -> None:
    event = next(event for event in snapshot["device_traces"][0] if event.get("category") == "activations")
    code, module, phase = event["frames"]
    assert code == {"filename": "transformers/models/llama/modeling_llama.py", "line": 174, "name": "aten.mm.default"}
    assert module["name"] == "model.layers.0.mlp.up_proj"
    assert phase["name"] == "in forward of step 1"


def test_an_allocators_own_addresses_are_kept(trace: Trace) -> None:
    addresses = np.full(len(trace), -1, dtype=np.int64)
    rows = trace.select("alloc")
    addresses[rows] = (1 << 40) + np.arange(len(rows)) * (4 << 30)
    events = memory_viewer.snapshot(trace, addresses)["device_traces"][0]
    on_gpu = rows[trace.storages["place"][trace.instructions["target"][rows]] == PLACE["gpu"]]
    assert [event["addr"] for event in events if event["action"] == "alloc"] == addresses[on_gpu].tolist()


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5000), st.integers(0, 2)), max_size=120))
def test_live_blocks_never_overlap(steps: list[tuple[bool, int, int]]) -> None:
    arena = Arena()
    live: list[tuple[int, int, int]] = []
    for take, number, stream in steps:
        if take or not live:
            start = arena.take(number, stream)
            assert all(start + rounded(number) <= other or other + rounded(nbytes) <= start for other, nbytes, _ in live)
            live.append((start, number, stream))
        else:
            arena.give_back(*live.pop(number % len(live)))


def test_a_block_given_back_whole_is_used_again() -> None:
    arena = Arena()
    first, second, third = (arena.take(1000) for _ in range(3))
    for address in (first, third, second):
        arena.give_back(address, 1000)
    assert arena.take(3000) == first
