"""The pinned host allocator's replay against cases worked out by hand from aten/src/ATen/core/CachingHostAllocator.h."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.pinned_allocator import PinnedAllocator

MIB = 1 << 20


@pytest.mark.parametrize(("size", "held"), [(1, 1), (3, 4), (4096, 4096), (5 * MIB, 8 * MIB), (8 * MIB, 8 * MIB), (8 * MIB + 1, 16 * MIB)])
def test_blocks_are_powers_of_two(size: int, held: int) -> None:
    replay = PinnedAllocator()
    assert replay.malloc(size).size == held
    assert (replay.used, replay.reserved, replay.requested) == (held, held, size)


def test_freed_blocks_stay_pinned_and_serve_their_class_only() -> None:
    replay = PinnedAllocator()
    first = replay.malloc(5 * MIB)
    replay.free(first)
    assert (replay.used, replay.reserved) == (0, 8 * MIB)
    assert replay.malloc(7 * MIB) is first
    replay.malloc(3 * MIB)
    assert (replay.reserved, replay.num_host_alloc) == (12 * MIB, 2)


def test_empty_cache_returns_what_lies_free() -> None:
    replay = PinnedAllocator()
    kept, freed = replay.malloc(MIB), replay.malloc(2 * MIB)
    replay.free(freed)
    replay.empty_cache()
    assert (replay.reserved, replay.reserved_peak, replay.num_host_free) == (MIB, 3 * MIB, 1)
    replay.free(kept)


def test_a_block_being_copied_waits_for_its_stream() -> None:
    replay = PinnedAllocator()
    block = replay.malloc(MIB)
    replay.record_stream(block, 3)
    replay.free(block, when=2.0)
    assert replay.malloc(MIB) is not block
    replay.synchronise(3, until=1.0)
    replay.empty_cache()
    assert (replay.used, replay.reserved) == (2 * MIB, 2 * MIB)
    replay.synchronise(3, until=2.0)
    assert replay.malloc(MIB) is block


def test_one_slow_stream_keeps_later_blocks() -> None:
    """process_events stops at the first event that has not passed."""
    replay = PinnedAllocator()
    slow, quick = replay.malloc(MIB), replay.malloc(MIB)
    replay.record_stream(slow, 1)
    replay.record_stream(quick, 2)
    replay.free(slow)
    replay.free(quick)
    replay.synchronise(2)
    assert replay.used == 2 * MIB
    replay.synchronise(1)
    assert replay.used == 0


def test_large_blocks_may_be_left_unrounded_and_uncached() -> None:
    replay = PinnedAllocator(AllocatorSettings.parse("pinned_max_round_threshold_mb:4,pinned_max_cached_size_mb:16"))
    assert [replay.malloc(size * MIB).size // MIB for size in (3, 5)] == [4, 5]
    large = replay.malloc(17 * MIB)
    replay.free(large)
    assert (replay.reserved, replay.num_host_free) == (9 * MIB, 1)


def test_an_unrounded_block_serves_no_larger_request() -> None:
    replay = PinnedAllocator(AllocatorSettings.parse("pinned_max_round_threshold_mb:4"))
    five = replay.malloc(5 * MIB)
    replay.free(five)
    assert replay.malloc(6 * MIB).size == 6 * MIB
    assert replay.malloc(5 * MIB) is five


def test_reserve_segment_is_pinned_whole_and_cut_in_pages() -> None:
    replay = PinnedAllocator(AllocatorSettings.parse("pinned_reserve_segment_size_mb:1"))
    assert replay.reserved == 0
    small = replay.malloc(1)
    assert (replay.reserved, replay.num_host_alloc) == (MIB, 1)
    replay.malloc(MIB // 2)
    replay.malloc(MIB // 2)
    assert replay.reserved == MIB + MIB // 2
    replay.free(small)
    replay.empty_cache()
    assert replay.reserved == MIB + MIB // 2


@given(st.lists(st.one_of(st.integers(1, 64 * MIB), st.floats(0, 1, exclude_max=True)), max_size=60))
def test_accounts_hold_and_all_memory_comes_back(events: list[float]) -> None:
    replay = PinnedAllocator()
    live = []
    for event in events:
        if isinstance(event, int):
            live.append(replay.malloc(event))
        elif live:
            replay.free(live.pop(int(event * len(live))))
        assert replay.used == sum(block.size for block in live) <= replay.reserved
        assert replay.requested <= replay.used < 2 * replay.requested or not live
        assert len({id(block) for block in live}) == len(live)
    for block in live:
        replay.free(block)
    replay.empty_cache()
    assert (replay.used, replay.requested, replay.reserved) == (0, 0, 0)
