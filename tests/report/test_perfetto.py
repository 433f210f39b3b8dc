"""The Chrome trace: well-formed, nested, and with the memory of the Run."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from membound.report import perfetto
from membound.report.perfetto import Times
from membound.run.schema import Run
from membound.trace.schema import Trace

Events = list[dict[str, Any]]


@pytest.fixture
def events(trace: Trace, run: Run) -> Events:
    return list(perfetto.events(trace, run.tables["memory.timeline"]))


def timed(trace: Trace) -> Times:
    """Two streams that overlap: each operation lasts 3 ms on the first and 10 ms on the second."""
    start, duration = np.full(len(trace), np.nan), np.full(len(trace), np.nan)
    rows = trace.select("kernel", "copy_h2d", "collective")
    start[rows] = np.arange(len(rows)) * 4e-3
    duration[rows] = np.where(trace.instructions["stream"][rows] == 0, 3e-3, 10e-3)
    return Times(start, duration)


def named(events: Events, kind: str, cat: str | None = None) -> Events:
    return [event for event in events if event["ph"] == kind and (cat is None or event.get("cat") == cat)]


def test_every_event_has_what_the_format_asks_for(events: Events) -> None:
    needed = {
        "X": {"ts", "dur", "tid", "name"},
        "C": {"ts", "args", "name"},
        "M": {"name", "args"},
        "s": {"id", "ts", "tid"},
        "f": {"id", "ts", "tid", "bp"},
    }
    assert {event["ph"] for event in events} >= {"X", "C", "M"}
    for event in events:
        assert needed[event["ph"]] | {"pid"} <= set(event)
        assert event.get("ts", 0) >= 0
        assert event.get("dur", 0) >= 0


def test_the_axis_says_that_it_is_not_time(trace: Trace, events: Events) -> None:
    assert "program order, not time" in events[0]["args"]["name"]
    assert "not time" not in next(perfetto.events(trace, times=timed(trace)))["args"]["name"]


def test_each_operation_is_there_on_its_stream_in_order(trace: Trace, events: Events) -> None:
    kernels = named(events, "X", "kernel")
    assert len(kernels) == len(trace.select("kernel"))
    assert all(event["dur"] == 1 for event in kernels)
    assert [event["ts"] for event in kernels] == sorted({event["ts"] for event in kernels})
    (first, second) = named(events, "X", "collective")
    assert first["tid"] == second["tid"] != kernels[0]["tid"]
    assert first["args"]["ranks"] == 2
    assert {event["args"]["name"] for event in named(events, "M") if event["name"] == "thread_name"} >= {
        "stream 0 (default)",
        "stream 1 (collectives)",
    }


@pytest.mark.parametrize("with_times", [False, True])
def test_slices_of_a_track_nest(trace: Trace, run: Run, with_times: bool) -> None:
    tracks: dict[int, Events] = defaultdict(list)
    for event in perfetto.events(trace, run.tables["memory.timeline"], timed(trace) if with_times else None):
        if event["ph"] == "X":
            tracks[event["tid"]].append(event)
    for slices in tracks.values():
        assert [event["ts"] for event in slices] == sorted(event["ts"] for event in slices)
        ends: list[float] = []
        for event in slices:
            while ends and ends[-1] <= event["ts"] + 1e-6:
                ends.pop()
            assert not ends or event["ts"] + event["dur"] <= ends[-1] + 1e-3
            ends.append(event["ts"] + event["dur"])


def test_phases_and_modules_are_named_by_level(events: Events) -> None:
    names = [event["name"] for event in named(events, "X", "phase")]
    assert names[:4] == ["load", "step 1", "micro-step 1", "forward"]
    modules = {event["name"] for event in named(events, "X", "module")}
    assert {"model", "layers.0", "mlp", "up_proj"} <= modules


def test_an_arrow_leads_from_what_is_waited_for_to_what_waited(trace: Trace, events: Events) -> None:
    starts, ends = named(events, "s"), named(events, "f")
    assert len(starts) == len(ends) == 2
    for start, end in zip(starts, ends, strict=True):
        assert start["id"] == end["id"]
        assert start["ts"] < end["ts"]
        for arrow in (start, end):  # each end lies in a slice of its track
            assert any(event["tid"] == arrow["tid"] and event["ts"] <= arrow["ts"] < event["ts"] + event["dur"] for event in named(events, "X"))


@pytest.mark.parametrize("with_times", [False, True])
def test_counters_are_the_runs_memory(trace: Trace, run: Run, with_times: bool) -> None:
    table = run.tables["memory.timeline"]
    counts = named(list(perfetto.events(trace, table, timed(trace) if with_times else None)), "C")
    assert [event["args"]["allocated"] for event in counts] == table["allocated"].to_pylist()
    assert [event["args"]["reserved"] for event in counts] == table["reserved"].to_pylist()
    moments = [event["ts"] for event in counts]
    assert moments == sorted(moments)
    assert len(set(moments)) == len(moments)


def test_without_a_timeline_the_counter_is_what_the_trace_allocates(trace: Trace, run: Run) -> None:
    counts = named(list(perfetto.events(trace)), "C")
    assert [event["args"]["allocated"] for event in counts] == run.tables["memory.timeline"]["allocated"].to_pylist()


def test_the_file_is_gzipped_json_and_reproducible(trace: Trace, run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        perfetto.write(trace, tmp_path / name, run.tables["memory.timeline"])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    document = json.loads(gzip.decompress((tmp_path / "a").read_bytes()))
    assert document["traceEvents"] == json.loads(json.dumps(list(perfetto.events(trace, run.tables["memory.timeline"]))))
    assert "not time" in document["otherData"]["time_axis"]
