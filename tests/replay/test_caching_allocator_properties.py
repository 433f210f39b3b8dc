"""What must hold of the device allocator's replay, whatever is allocated and freed in whatever order."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from membound.replay.allocator_blocks import Block
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.caching_allocator import CachingAllocator, OutOfMemory, round_size

KIB, MIB = 1 << 10, 1 << 20
PLAIN, EXPANDABLE = AllocatorSettings(), AllocatorSettings(expandable_segments=True)

SIZES = st.one_of(st.integers(1, 8 * KIB), st.integers(1, MIB), st.integers(MIB, 48 * MIB))
# An event: allocate (size, stream), or free the live block at a share of the list, first used by another stream or not.
EVENTS = st.lists(st.one_of(st.tuples(SIZES, st.integers(0, 1)), st.tuples(st.floats(0, 1, exclude_max=True), st.booleans())), max_size=60)
SETTINGS = st.sampled_from([AllocatorSettings.parse(text) for text in ("", "expandable_segments:True", "max_split_size_mb:20",
    "roundup_power2_divisions:4", "expandable_segments:True,max_split_size_mb:40", "large_segment_size_mb:32")])  # fmt: skip
CAPACITIES = st.sampled_from([None, 96 * MIB, 400 * MIB])


def play(replay: CachingAllocator, events: list[tuple[float, int | bool]]) -> list[Block]:
    """Replay the events, checking after each what must always hold; return the live blocks."""
    live: list[Block] = []
    for what, how in events:
        if isinstance(what, int):
            try:
                live.append(replay.malloc(what, int(how)))
            except OutOfMemory:
                assert replay.capacity is not None
        elif live:
            block = live.pop(int(what * len(live)))
            if how:
                replay.record_stream(block, 7)
            replay.free(block)
        check(replay, live)
    return live


def check(replay: CachingAllocator, live: list[Block]) -> None:
    assert replay.requested >= sum(block.requested for block in live)
    assert replay.allocated == sum(block.size for block in live)
    assert replay.allocated <= replay.active <= replay.reserved <= (replay.capacity or replay.reserved)
    assert replay.allocated_peak <= replay.active_peak <= replay.reserved_peak
    segments = replay.segments()
    assert sum(segment.size for segment in segments) == replay.reserved
    assert all(low.address + low.size <= high.address for low, high in pairwise(segments))
    shown = {block.address: block for segment in segments for block in segment.blocks}
    for block in live:
        assert shown[block.address].state == "active_allocated"
        assert shown[block.address].size == block.size >= block.requested
    for segment in segments:
        end = segment.address
        for view in segment.blocks:
            assert view.address == end
            end += view.size
        assert end == segment.address + segment.size
        states = [view.state for view in segment.blocks]
        assert all(pair != ("inactive", "inactive") for pair in pairwise(states))
    if not replay.settings.expandable_segments:
        split = [view.size for segment in segments if len(segment.blocks) > 1 for view in segment.blocks if view.state == "inactive"]
        assert replay.inactive_split == sum(split)


@settings(max_examples=150, deadline=None)
@given(EVENTS, SETTINGS, CAPACITIES)
def test_accounts_hold_and_all_memory_comes_back(events: list[tuple[float, int | bool]], how: AllocatorSettings, capacity: int | None) -> None:
    replay = CachingAllocator(capacity, how)
    for block in play(replay, events):
        replay.free(block)
    replay.empty_cache()
    assert (replay.allocated, replay.active, replay.requested, replay.reserved, replay.inactive_split) == (0, 0, 0, 0, 0)
    assert replay.segments() == []
    assert replay.num_segments == 0


@settings(max_examples=100, deadline=None)
@given(EVENTS, SIZES, st.sampled_from([PLAIN, EXPANDABLE]))
def test_nothing_is_reserved_while_a_free_block_fits(events: list[tuple[float, int | bool]], size: int, how: AllocatorSettings) -> None:
    replay = CachingAllocator(None, how)
    play(replay, events)
    pool, rounded = "small" if size <= MIB else "large", round_size(size, how)
    free = [b.size for s in replay.segments() if (s.stream, s.pool) == (0, pool) for b in s.blocks if b.state == "inactive"]
    fitting = [room for room in free if room >= rounded]
    before = replay.reserved
    block = replay.malloc(size)
    assert (replay.reserved == before) == bool(fitting)
    if fitting and not how.expandable_segments:
        rest = min(fitting) - rounded
        assert block.size == (min(fitting) if pool == "large" and rest <= MIB else rounded)


@settings(max_examples=100, deadline=None)
@given(st.lists(SIZES, max_size=30))
def test_expandable_wastes_less_than_a_page_on_a_stack(sizes: list[int]) -> None:
    """Last in, first out: the segment is as long as the deepest stack, in whole pages."""
    replay = CachingAllocator(None, EXPANDABLE)
    for _ in range(2):
        blocks = [replay.malloc(size) for size in sizes]
        for block in reversed(blocks):
            replay.free(block)
    small = sum(round_size(size, EXPANDABLE) for size in sizes if size <= MIB)
    large = sum(round_size(size, EXPANDABLE) for size in sizes if size > MIB)
    assert replay.reserved == -(-small // (2 * MIB)) * 2 * MIB + -(-large // (20 * MIB)) * 20 * MIB


@settings(max_examples=50, deadline=None)
@given(EVENTS, SETTINGS)
def test_the_same_program_from_an_emptied_cache_reserves_the_same(events: list[tuple[float, int | bool]], how: AllocatorSettings) -> None:
    replay = CachingAllocator(None, how)
    peaks = []
    for _ in range(2):
        for block in play(replay, events):
            replay.free(block)
        replay.empty_cache()
        peaks.append((replay.reserved_peak, replay.allocated_peak))
        replay.reset_peaks()
    assert peaks[0] == peaks[1]
