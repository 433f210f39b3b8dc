"""What follows from an earlier turn of a cycle is not walked, and comes to the same as if it were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membound.replay.allocator_blocks import Block
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.allocator_walk import Walk
from membound.replay.caching_allocator import CachingAllocator
from membound.replay.script import Script, Scripts
from membound.trace.builder import TraceBuilder
from membound.trace.schema import KIND, PHASE, PLACE, Trace

MIB = 1 << 20


def trace(sizes: list[int], kept: int, uses: int) -> Trace:
    """Three micro-steps in each of two steps, the middle one standing for many: `sizes` (MiB) in turn, one of which lives on into the next
    micro-step; another stream uses every so many of them."""
    builder = TraceBuilder()
    old = builder.alloc(PLACE["gpu"], sizes[kept % len(sizes)] * MIB)
    for step in range(2):
        for micro in range(3):
            builder.position.phase, builder.position.step, builder.position.micro = PHASE["forward"], step, micro
            held = []
            for number, size in enumerate(sizes):
                held.append(builder.alloc(PLACE["gpu"], size * MIB))
                builder.add(KIND["kernel"])
                if uses and number % uses == 0:
                    builder.add(KIND["record_stream"], 0, 1, held[-1])
            builder.add(KIND["sync"], 0, 1, 1)
            builder.free(old)
            old = held.pop(kept % len(sizes))
            for storage in held:
                builder.free(storage)
    numbers = {"rank": 0, "ranks": 1, "ranks_per_node": 1, "steps": 2, "micro_steps": 3, "repeat": 9, "parameters": 1, "trained": 1}
    return builder.finish(job={}, versions={}, **numbers)


def walk(script: Script, text: str, capacity: int | None, cycles: bool) -> Walk:
    allocator = CachingAllocator(capacity, AllocatorSettings.parse(text))
    return Walk(allocator, script.program, script.releases(None), script.cycles if cycles else ()).go()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(0, 5), st.integers(0, 3),
    st.sampled_from(["", "expandable_segments:True", "max_split_size_mb:20"]), st.sampled_from([None, 60 * MIB, 150 * MIB, 300 * MIB]),
)  # fmt: skip
def test_turns_that_are_not_walked_come_to_the_same(sizes: list[int], kept: int, uses: int, text: str, capacity: int | None) -> None:
    script = Scripts(trace(sizes, kept, uses)).of("hopper")
    quick, slow = (walk(script, text, capacity, cycles) for cycles in (True, False))
    for mine, theirs in zip(quick.columns(), slow.columns(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert (quick.failure is None) == (slow.failure is None)
    assert quick.retries == slow.retries
    assert quick.allocator.active_peak == slow.allocator.active_peak


def test_what_has_settled_is_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripts(trace([3, 40, 7], 0, 0)).of("hopper")
    asked: list[int] = []
    real = CachingAllocator.malloc

    def counting(self: CachingAllocator, size: int, stream: int = 0) -> Block:
        asked.append(size)
        return real(self, size, stream)

    monkeypatch.setattr(CachingAllocator, "malloc", counting)
    walk(script, "", None, cycles=True)
    few = len(asked)
    walk(script, "", None, cycles=False)
    # Two steps of three micro-steps, and those that are repeated: of the latter none, and the last step's turns once at most.
    assert few <= len(asked) - few - 4 * 3
