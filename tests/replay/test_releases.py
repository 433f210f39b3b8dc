"""Memory that several streams use, by the clock: it can be taken again once the host sees that they are done with it, and no sooner."""

from __future__ import annotations

import numpy as np
import pytest

from membound.replay.memory import replay
from membound.replay.memory_program import ALLOC, FREE, USE, MemoryProgram, program
from membound.replay.pace import Pace, deferring
from membound.replay.releases import Deferred, at_once, by_clock
from membound.spec import catalogue
from membound.trace.builder import TraceBuilder
from membound.trace.schema import KIND, PHASE, PLACE, Trace

MIB = 1 << 20
SIZE = 20 * MIB


def step(uses: bool = True) -> tuple[Trace, list[int]]:
    """A block that stream 1 uses is freed after the first of two kernels, another is asked for after the second; and the kernels' rows."""
    builder = TraceBuilder()
    builder.position.phase, builder.position.step, builder.position.micro = PHASE["forward"], 0, 0
    held = builder.alloc(PLACE["gpu"], SIZE)
    rows = [len(builder)]
    builder.add(KIND["kernel"], 0, 1)
    if uses:
        builder.add(KIND["record_stream"], 0, 1, held)
    builder.free(held)
    rows.append(len(builder))
    builder.add(KIND["kernel"], 0, 0)
    more = builder.alloc(PLACE["gpu"], SIZE)
    rows.append(len(builder))
    builder.add(KIND["kernel"], 0, 0)
    builder.free(more)
    header = {"versions": {}, "rank": 0, "ranks": 1, "ranks_per_node": 1, "steps": 1, "micro_steps": 1, "repeat": 1}
    return builder.finish(job={}, parameters=1, trained=1, **header), rows


def pace(rows: list[int], host: list[float], other: float) -> Pace:
    """The host at `host` after each of `rows`; stream 1 done with the first at `other`."""
    count = len(rows)
    return Pace(np.array(rows), np.array(host), {0: np.array(host), 1: np.full(count, other)})


@pytest.mark.parametrize(("host", "reserved"), [(4.0, 2 * SIZE), (5.0, SIZE), (6.0, SIZE)])
def test_it_is_free_once_the_host_sees_the_stream_done(host: float, reserved: int) -> None:
    trace, rows = step()
    gpu = replay(trace, catalogue.machine("h100-sxm"), pace=pace(rows, [1.0, host, 9.0], 5.0)).gpu
    assert gpu.reserved_peak == gpu.active_peak == reserved
    assert gpu.allocated_peak == SIZE


def test_without_times_it_is_held_for_a_queue_of_launches() -> None:
    # Through the step and two turns of it: nobody waits for stream 1.
    assert replay(step()[0], catalogue.machine("h100-sxm")).gpu.reserved_peak == 4 * SIZE


def test_at_once_it_is_free_for_the_next_allocation() -> None:
    asked = program(step()[0], "hopper")
    found = at_once(asked, Deferred.of(asked))
    frees, allocations = (np.flatnonzero(asked.action == action) for action in (FREE, ALLOC))
    assert found.event.tolist() == [int(allocations[allocations > frees[0]][0])]
    assert found.block.tolist() == [int(asked.target[frees[0]])]


def test_outside_of_the_step_that_is_timed_nothing_is_held() -> None:
    trace, rows = step()
    late = pace([rows[-1] + 5, rows[-1] + 6], [1.0, 2.0], 9.0)
    assert replay(trace, catalogue.machine("h100-sxm"), pace=late).gpu.reserved_peak == SIZE


def test_only_what_another_stream_uses_depends_on_the_pace() -> None:
    assert deferring(step()[0])
    assert not deferring(step(uses=False)[0])


def test_the_clock_goes_on_from_turn_to_turn() -> None:
    # Each turn takes the host 2 s and stream 1 is done 3 s after it has begun: in the next turn, once its first second is over.
    turns = 3
    blocks = np.arange(turns).repeat(5) * 3 + np.tile([0, 1, 1, 1, 2], turns)
    columns = {"action": [ALLOC, ALLOC, USE, FREE, ALLOC], "row": [0, 1, 1, 1, 1], "stream": [0, 0, 1, 0, 0]}
    program = MemoryProgram(
        **{name: np.tile(column, turns) for name, column in columns.items()},
        target=blocks,
        **{name: np.full(3 * turns, SIZE) for name in ("nbytes", "category", "origin")},
    )
    found = by_clock(program, Deferred.of(program), pace([0, 1], [1.0, 2.0], 3.0))
    assert found.block.tolist() == [1, 4, 7]
    assert found.event.tolist() == [5, 10, len(program)]
