"""Items on their streams: small programs whose end can be worked out by hand, and what holds for any program."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membound.cost.resources import ROW, ROWS
from membound.replay.pricing import Prices
from membound.replay.program import compiled
from membound.replay.timeline import Timeline, play
from membound.trace.builder import TraceBuilder
from membound.trace.schema import KIND, PHASE

# Resource that each kind of item hangs on here.
RESOURCE = {"kernel": "compute", "copy_h2d": "pcie", "copy_d2h": "pcie", "collective": "nvlink", "host": "ddr"}
# Durations are whole seconds, beside which a launch's latency is nothing.
NOTHING = 0.01


@dataclass
class Script:
    """A step, item by item; seconds."""

    builder: TraceBuilder = field(default_factory=TraceBuilder)
    items: list[tuple[str, float]] = field(default_factory=list)

    def phase(self, name: str) -> None:
        self.builder.position.phase, self.builder.position.step, self.builder.position.micro = PHASE[name], 0, 0

    def add(self, kind: str, seconds: float = 0.0, stream: int = 0, target: int = -1, flag: int = 0) -> None:
        if not self.items:
            self.phase("forward")
        self.builder.add(KIND[kind], 0, stream, target, flag=flag)
        self.items.append((kind, seconds))

    def kernel(self, seconds: float, stream: int = 0) -> None:
        self.add("kernel", seconds, stream)

    def play(self, launch: float = 0.0, engine: str = "none", columns: int = 1, scale: float = 1.0) -> Timeline:
        trace = self.builder.finish(
            job={"recipe": {"engine": engine}},
            versions={},
            rank=0,
            ranks=1,
            ranks_per_node=1,
            steps=1,
            micro_steps=1,
            repeat=1,
            parameters=1,
            trained=1,
        )
        table = np.zeros((ROWS, len(self.items), columns))
        for item, (kind, seconds) in enumerate(self.items):
            if kind in RESOURCE:
                table[[0, ROW[RESOURCE[kind]]], item] = seconds * scale * np.arange(1, columns + 1)
        count = len(self.items)
        zeros = np.zeros((count, columns))
        return play(compiled(trace), Prices(table, np.arange(count), np.full(count, launch), np.zeros(count), zeros))


@pytest.fixture
def script() -> Script:
    return Script()


def total(line: Timeline) -> float:
    return float(line.borders[-1, 0, 0])


def share(line: Timeline, resource: str) -> float:
    """Seconds of the step that hang on `resource`."""
    return float(line.borders[-1, ROW[resource], 0])


def test_long_kernels_run_back_to_back(script: Script) -> None:
    for _ in range(5):
        script.kernel(2.0)
    line = script.play(launch=0.1)
    assert total(line) == pytest.approx(10.1, abs=NOTHING)
    assert share(line, "compute") == pytest.approx(10.0)


def test_short_kernels_wait_for_the_host(script: Script) -> None:
    for _ in range(5):
        script.kernel(0.1)
    line = script.play(launch=2.0)
    assert total(line) == pytest.approx(10.1, abs=NOTHING)
    assert share(line, "launch") == pytest.approx(10.0, abs=NOTHING)


def test_streams_run_side_by_side(script: Script) -> None:
    script.kernel(3.0, stream=0)
    script.kernel(2.0, stream=1)
    assert total(script.play()) == pytest.approx(3.0, abs=NOTHING)


def test_a_stream_that_waits_for_an_event_starts_where_it_was_recorded(script: Script) -> None:
    script.kernel(3.0)
    script.add("record", target=7)
    script.kernel(4.0)  # after the record: not waited for
    script.add("wait", stream=1, target=7)
    script.kernel(5.0, stream=1)
    line = script.play()
    assert line.start[4, 0] == pytest.approx(3.0, abs=NOTHING)
    assert total(line) == pytest.approx(8.0, abs=NOTHING)


def test_an_event_that_nobody_recorded_is_over(script: Script) -> None:
    script.add("wait", target=7)
    script.kernel(1.0)
    assert total(script.play()) == pytest.approx(1.0, abs=NOTHING)


def test_one_copy_engine_for_each_direction(script: Script) -> None:
    script.add("copy_h2d", 2.0, stream=1, flag=1)
    script.add("copy_h2d", 2.0, stream=2, flag=1)
    script.add("copy_d2h", 3.0, stream=3, flag=1)
    line = script.play()
    assert line.start[:, 0].tolist() == pytest.approx([0.0, 2.0, 0.0], abs=NOTHING)
    assert total(line) == pytest.approx(4.0, abs=NOTHING)


def test_a_copy_whose_stream_waits_does_not_hold_up_another_streams(script: Script) -> None:
    script.kernel(5.0, stream=1)
    script.add("copy_h2d", 2.0, stream=1, flag=1)
    script.add("copy_h2d", 3.0, stream=2, flag=1)
    line = script.play()
    assert line.start[1:, 0].tolist() == pytest.approx([5.0, 0.0], abs=NOTHING)
    assert total(line) == pytest.approx(7.0, abs=NOTHING)


def test_the_time_that_two_copies_have_together_is_taken_from_the_next(script: Script) -> None:
    script.kernel(5.0, stream=1)
    script.add("copy_h2d", 2.0, stream=1, flag=1)
    script.add("copy_h2d", 6.0, stream=2, flag=1)
    script.add("copy_h2d", 1.0, stream=3, flag=1)
    line = script.play()
    assert line.start[1:, 0].tolist() == pytest.approx([5.0, 0.0, 8.0], abs=NOTHING)
    assert line.end[1:, 0].tolist() == pytest.approx([7.0, 6.0, 9.0], abs=NOTHING)
    assert share(line, "pcie") == pytest.approx(9.0, abs=NOTHING)


@pytest.mark.parametrize(("flag", "launched"), [(0, 6.0), (1, 0.0)])
def test_a_blocking_copy_holds_the_host(script: Script, flag: int, launched: float) -> None:
    script.kernel(5.0)
    script.add("copy_d2h", 1.0, flag=flag)
    script.kernel(1.0, stream=1)
    assert script.play().start[2, 0] == pytest.approx(launched, abs=NOTHING)


def test_a_collective_hides_behind_kernels_and_waits_for_the_last_one(script: Script) -> None:
    script.add("collective", 4.0, stream=1)
    script.kernel(6.0)
    script.add("collective", 4.0, stream=2)
    line = script.play()
    assert line.start[:, 0].tolist() == pytest.approx([0.0, 0.0, 4.0], abs=NOTHING)
    assert total(line) == pytest.approx(8.0, abs=NOTHING)
    assert share(line, "nvlink") == pytest.approx(8.0)


def test_a_synchronisation_holds_the_host_until_its_stream_is_done(script: Script) -> None:
    script.kernel(3.0, stream=1)
    script.kernel(5.0, stream=2)
    script.add("sync", target=1)
    script.kernel(1.0)
    script.add("sync", target=-1)
    script.kernel(1.0)
    assert script.play().start[[3, 5], 0].tolist() == pytest.approx([3.0, 5.0], abs=NOTHING)


def test_host_work_holds_the_host_and_not_the_gpu(script: Script) -> None:
    script.kernel(2.0)
    script.add("host", 3.0)
    script.kernel(1.0)
    line = script.play()
    assert line.start[:, 0].tolist() == pytest.approx([0.0, 0.0, 3.0], abs=NOTHING)
    assert share(line, "ddr") == pytest.approx(3.0)


def test_ddp_waits_for_its_buckets_where_backward_ends(script: Script) -> None:
    script.phase("backward")
    script.items.append(("kernel", 1.0))
    script.builder.add(KIND["kernel"])
    script.add("collective", 4.0)
    script.phase("optimizer")
    script.kernel(1.0)
    line = script.play(engine="ddp")
    assert line.borders[:, 0, 0].tolist() == pytest.approx([5.0, 6.0], abs=NOTHING)


def test_the_host_is_never_further_ahead_than_the_queue_is_deep(script: Script) -> None:
    for _ in range(3000):
        script.kernel(1.0)
    script.add("host", 1.0)
    line = script.play()
    assert line.start[-1, 0] == pytest.approx(3000 - 1024, abs=70)


def test_phases_are_segments_that_end_where_the_later_of_host_and_gpu_is(script: Script) -> None:
    script.kernel(2.0)
    script.phase("backward")
    script.kernel(4.0)
    line = script.play()
    assert line.segments.tolist() == [0, 1]
    assert line.borders[:, 0, 0].tolist() == pytest.approx([2.0, 6.0], abs=NOTHING)


def test_all_columns_are_played_at_once(script: Script) -> None:
    for stream in (0, 1, 0):
        script.kernel(2.0, stream)
    assert script.play(columns=3).borders[-1, 0].tolist() == pytest.approx([4.0, 8.0, 12.0], abs=NOTHING)


ITEMS = st.tuples(
    st.sampled_from(["kernel", "kernel", "kernel", "copy_h2d", "copy_d2h", "collective", "host", "record", "wait", "sync"]),
    st.integers(0, 4),
    st.integers(0, 2),
    st.integers(-1, 2),
    st.integers(0, 1),
)


def written(items: list[tuple[str, int, int, int, int]]) -> Script:
    script = Script()
    for kind, seconds, stream, target, flag in items:
        script.add(kind, float(seconds), stream, max(target, 0) if kind != "sync" else target, flag)
    return script


programs = st.lists(ITEMS, min_size=1, max_size=40)
launches = st.sampled_from([0.0, 0.5, 3.0])


@settings(max_examples=60)
@given(programs, launches)
def test_what_the_step_hangs_on_adds_up_to_it(items: list[tuple[str, int, int, int, int]], launch: float) -> None:
    line = written(items).play(launch)
    np.testing.assert_allclose(line.borders[:, 1:].sum(axis=1), line.borders[:, 0], atol=1e-9)
    assert (line.borders >= -1e-12).all()


@settings(max_examples=60)
@given(programs, launches)
def test_no_item_starts_before_it_was_launched_or_while_its_stream_or_engine_is_at_work(
    items: list[tuple[str, int, int, int, int]], launch: float
) -> None:
    line = written(items).play(launch)
    last: dict[object, float] = {}
    for item, (kind, seconds, stream, _, _) in enumerate(items):
        if kind not in RESOURCE:
            continue
        start, end = line.start[item, 0], line.end[item, 0]
        assert end - start == pytest.approx(seconds)
        assert start >= launch * (item + 1) - 1e-9
        busy = ["host"] if kind == "host" else [("stream", stream), *([("engine", kind)] if kind == "collective" else [])]
        for one in busy:
            assert start >= last.get(one, 0.0) - 1e-9
            last[one] = end


@settings(max_examples=60)
@given(programs, launches, st.sampled_from(["copy_h2d", "copy_d2h"]))
def test_a_link_moves_one_copy_at_a_time_but_for_what_it_still_owes(items: list[tuple[str, int, int, int, int]], launch: float, kind: str) -> None:
    line = written(items).play(launch)
    copies = [item for item, each in enumerate(items) if each[0] == kind and each[1]]
    owed = max((items[item][1] for item in copies), default=0)
    for first in copies:
        begin = line.start[first, 0]
        after = [item for item in copies if line.start[item, 0] >= begin]
        assert sum(items[item][1] for item in after) <= max(line.end[item, 0] for item in after) - begin + owed + 1e-9


@settings(max_examples=60)
@given(programs, launches)
def test_the_step_is_no_longer_than_all_its_parts_in_a_row_and_no_shorter_than_any(
    items: list[tuple[str, int, int, int, int]], launch: float
) -> None:
    step = total(written(items).play(launch))
    seconds = [each for kind, each, *_ in items if kind in RESOURCE]
    assert step <= sum(seconds) + (launch + 3e-6) * len(items) + 1e-9
    assert step >= max([*seconds, launch * len(items)]) - 1e-9


@settings(max_examples=60)
@given(programs, launches, st.sampled_from([0.5, 0.9]))
def test_faster_items_never_make_the_step_longer(items: list[tuple[str, int, int, int, int]], launch: float, scale: float) -> None:
    # Copies on several streams may: one that is ready earlier then goes before one that more waits for.
    items = [(kind, seconds, 1 if kind.startswith("copy") else stream, *rest) for kind, seconds, stream, *rest in items]
    assert total(written(items).play(launch, scale=scale)) <= total(written(items).play(launch)) + 1e-9
