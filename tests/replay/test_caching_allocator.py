"""The device allocator's replay against cases worked out by hand from c10/cuda/CUDACachingAllocator.cpp."""

from __future__ import annotations

from itertools import pairwise

import pytest

from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.caching_allocator import CachingAllocator, OutOfMemory

MIB = 1 << 20
PLAIN, EXPANDABLE = AllocatorSettings(), AllocatorSettings(expandable_segments=True)


def allocator(text: str = "", capacity: int | None = None) -> CachingAllocator:
    return CachingAllocator(capacity, AllocatorSettings.parse(text))


@pytest.mark.parametrize(
    ("size", "allocated", "reserved"),
    [
        # round_size: whole 512 B; get_allocation_size: up to 1 MiB from a segment of 2 MiB
        (1, 512, 2 * MIB),
        (512, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        # more than 1 MiB and less than 10: from a segment of 20 MiB
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        # from 10 MiB: a segment of its own, in whole 2 MiB; a rest of 1 MiB or less is not split off
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB, 12 * MIB, 12 * MIB),
        (11 * MIB - 512, 11 * MIB - 512, 12 * MIB),
        (20 * MIB + 1, 20 * MIB + 512, 22 * MIB),
    ],
)
def test_one_request(size: int, allocated: int, reserved: int) -> None:
    replay = allocator()
    block = replay.malloc(size)
    assert (replay.allocated, replay.reserved, replay.requested, block.size) == (allocated, reserved, size, allocated)
    assert replay.num_segments == 1
    replay.free(block)
    assert (replay.allocated, replay.requested, replay.reserved) == (0, 0, reserved)


def test_a_freed_block_is_used_again() -> None:
    replay = allocator()
    first = replay.malloc(30 * MIB)
    address = first.address
    replay.free(first)
    assert replay.malloc(30 * MIB).address == address
    assert replay.reserved == 30 * MIB


def test_the_smallest_fitting_block_is_taken_then_the_lowest() -> None:
    replay = allocator()
    big, low, high = (replay.malloc(size * MIB) for size in (60, 40, 40))
    addresses = low.address, high.address
    for block in (big, high, low):
        replay.free(block)
    assert (replay.malloc(40 * MIB).address, replay.malloc(40 * MIB).address) == addresses


def test_streams_and_pools_share_nothing() -> None:
    replay = allocator()
    replay.free(replay.malloc(30 * MIB, stream=1))
    replay.malloc(30 * MIB, stream=2)
    replay.malloc(512, stream=1)
    assert replay.reserved == 30 * MIB + 30 * MIB + 2 * MIB


def test_splits_and_merges() -> None:
    """One 20 MiB segment: three blocks, the middle one freed first."""
    replay = allocator()
    one, two, three = (replay.malloc(4 * MIB) for _ in range(3))
    assert (replay.reserved, replay.inactive_split) == (20 * MIB, 8 * MIB)
    replay.free(two)
    assert replay.inactive_split == 12 * MIB
    assert [(block.size // MIB, block.state) for block in replay.segments()[0].blocks] == [
        (4, "active_allocated"),
        (4, "inactive"),
        (4, "active_allocated"),
        (8, "inactive"),
    ]
    replay.free(three)
    assert replay.inactive_split == 16 * MIB
    replay.free(one)
    assert replay.inactive_split == 0
    assert [block.size for block in replay.segments()[0].blocks] == [20 * MIB]


def test_fragmentation_reserves_more_than_is_allocated() -> None:
    """Every other 2 MiB freed: 10 MiB lie free, none of it in one piece for a request of 8."""
    replay = allocator()
    blocks = [replay.malloc(2 * MIB) for _ in range(10)]
    for block in blocks[::2]:
        replay.free(block)
    replay.malloc(8 * MIB)
    assert (replay.allocated, replay.reserved) == (18 * MIB, 40 * MIB)


def test_large_rest_of_one_mebibyte_stays_with_its_block() -> None:
    """should_split, large pool: the rest must be more than 1 MiB."""
    replay = allocator()
    replay.free(replay.malloc(12 * MIB))
    kept = replay.malloc(11 * MIB)
    assert kept.size == 12 * MIB
    replay.free(kept)
    assert replay.malloc(11 * MIB - 512).size == 11 * MIB - 512


def test_a_block_that_another_stream_uses_is_not_reused_before_that_stream_passed() -> None:
    """record_stream: at the free an event is left on each using stream (insert_events)."""
    replay = allocator()
    block = replay.malloc(30 * MIB, stream=0)
    replay.record_stream(block, 0)
    replay.record_stream(block, 1)
    replay.record_stream(block, 2)
    replay.free(block, when=5.0)
    assert (replay.allocated, replay.active, replay.requested) == (0, 30 * MIB, 30 * MIB)
    assert replay.segments()[0].blocks[0].state == "active_awaiting_free"
    replay.synchronise(1, until=4.0)
    replay.synchronise(2)
    second = replay.malloc(30 * MIB, stream=0)
    assert replay.reserved == 60 * MIB
    replay.synchronise(1, until=5.0)
    assert (replay.active, replay.requested) == (30 * MIB, 30 * MIB)
    third = replay.malloc(30 * MIB, stream=0)
    assert replay.reserved == 60 * MIB
    assert second.address != third.address


def test_pending_neighbours_do_not_merge() -> None:
    replay = allocator()
    one, two = replay.malloc(4 * MIB), replay.malloc(4 * MIB)
    replay.record_stream(one, 1)
    replay.free(one)
    replay.free(two)
    assert [block.size // MIB for block in replay.segments()[0].blocks] == [4, 16]
    replay.synchronise()
    assert [block.size // MIB for block in replay.segments()[0].blocks] == [20]


def test_the_cache_is_emptied_before_memory_is_said_to_be_out() -> None:
    """malloc: alloc_block, release_cached_blocks, alloc_block again."""
    replay = allocator(capacity=100 * MIB)
    replay.free(replay.malloc(60 * MIB))
    block = replay.malloc(80 * MIB)
    assert (replay.reserved, replay.num_alloc_retries, replay.num_sync_all_streams) == (80 * MIB, 1, 1)
    with pytest.raises(OutOfMemory) as caught:
        replay.malloc(21 * MIB)
    refused = caught.value
    assert (refused.requested, refused.tried, refused.free) == (21 * MIB, 22 * MIB, 20 * MIB)
    assert (refused.allocated, refused.reserved, replay.num_ooms, replay.num_alloc_retries) == (80 * MIB, 80 * MIB, 1, 2)
    replay.free(block)
    assert replay.malloc(21 * MIB).size == 21 * MIB


def test_a_segment_in_use_cannot_be_given_back() -> None:
    replay = allocator(capacity=40 * MIB)
    small, large = replay.malloc(2 * MIB), replay.malloc(9 * MIB)
    replay.free(large)
    replay.malloc(20 * MIB)
    with pytest.raises(OutOfMemory):
        replay.malloc(19 * MIB)
    replay.free(small)


def test_memory_awaiting_a_stream_is_waited_for_when_memory_is_short() -> None:
    replay = allocator(capacity=40 * MIB)
    block = replay.malloc(40 * MIB)
    replay.record_stream(block, 1)
    replay.free(block)
    assert replay.malloc(30 * MIB).size == 30 * MIB
    assert replay.reserved == 30 * MIB


def test_expandable_segment_grows_by_pages() -> None:
    """2 MiB pages for the small pool, 20 MiB for the large one; each starts where the last request ended."""
    replay = allocator("expandable_segments:True", capacity=1024 * MIB)
    blocks = [replay.malloc(11 * MIB) for _ in range(4)]
    assert (replay.allocated, replay.reserved) == (44 * MIB, 60 * MIB)
    assert [b.address - a.address for a, b in pairwise(blocks)] == [11 * MIB] * 3
    replay.malloc(1)
    assert (replay.reserved, replay.num_segments, replay.inactive_split) == (62 * MIB, 0, 0)
    assert [(s.size // MIB, s.pool, s.expandable) for s in replay.segments()] == [(60, "large", True), (2, "small", True)]


def test_expandable_segment_unmaps_the_whole_pages_of_a_gap() -> None:
    """Blocks of 30 MiB: freeing the second leaves 30..60 free, of which only the page 40..60 lies within; it is mapped again later."""
    replay = allocator("expandable_segments:True", capacity=1024 * MIB)
    _, gap, last = (replay.malloc(30 * MIB) for _ in range(3))
    assert replay.reserved == 100 * MIB
    replay.free(gap)
    replay.empty_cache()
    assert replay.reserved == 80 * MIB
    assert [segment.size // MIB for segment in replay.segments()] == [40, 40]
    assert replay.malloc(30 * MIB).address == last.address - 30 * MIB
    assert replay.reserved == 100 * MIB


def test_expandable_segments_do_not_fragment_where_plain_ones_do() -> None:
    """Activations a little larger in each step: plain segments become slivers, an expandable one is refilled."""

    def steps(replay: CachingAllocator) -> int:
        for step in range(10):
            blocks = [replay.malloc((20 + 4 * step) * MIB) for _ in range(8)]
            for block in blocks:
                replay.free(block)
        return replay.reserved_peak

    peak = 8 * 56 * MIB
    assert steps(CachingAllocator(None, EXPANDABLE)) <= peak + 20 * MIB
    assert steps(CachingAllocator(None, PLAIN)) > 2 * peak


def test_max_split_size_keeps_large_blocks_whole() -> None:
    """get_free_block: a request below the limit takes no block of the limit or more; above it, one at most 20 MiB larger."""
    replay = allocator("max_split_size_mb:64")
    replay.free(replay.malloc(100 * MIB))
    replay.malloc(30 * MIB)
    assert replay.reserved == 130 * MIB
    assert replay.malloc(82 * MIB).size == 100 * MIB
    replay.malloc(78 * MIB)
    assert replay.reserved == 208 * MIB


def test_oversize_blocks_go_back_one_by_one_when_memory_is_short() -> None:
    """release_available_cached_blocks gives back just enough, and counts no retry."""
    replay = allocator("max_split_size_mb:64", capacity=300 * MIB)
    blocks = [replay.malloc(90 * MIB) for _ in range(3)]
    for block in blocks:
        replay.free(block)
    replay.malloc(50 * MIB)
    assert (replay.reserved, replay.num_alloc_retries) == (180 * MIB + 50 * MIB, 0)


def test_garbage_is_collected_only_under_a_memory_fraction() -> None:
    """Above half of 99 MiB the 40 MiB that lie free go back; without a limit by fraction the threshold means nothing."""
    text = "garbage_collection_threshold:0.5"
    for fraction, reserved in (("", 70 * MIB), (",per_process_memory_fraction:0.99", 30 * MIB)):
        replay = CachingAllocator(None, AllocatorSettings.parse(text + fraction), total=100 * MIB)
        replay.free(replay.malloc(40 * MIB, stream=1))
        replay.malloc(10 * MIB, stream=2)
        replay.malloc(20 * MIB, stream=2)
        assert replay.reserved == reserved


def test_memory_fraction_limits_what_is_reserved() -> None:
    replay = CachingAllocator(None, AllocatorSettings.parse("per_process_memory_fraction:0.5"), total=80 * MIB)
    replay.malloc(40 * MIB)
    with pytest.raises(OutOfMemory):
        replay.malloc(1)


def test_refusal_before_cudamalloc_empties_no_cache() -> None:
    replay = allocator("throw_on_cudamalloc_oom:True", capacity=100 * MIB)
    replay.free(replay.malloc(60 * MIB))
    with pytest.raises(OutOfMemory):
        replay.malloc(80 * MIB)
    assert (replay.reserved, replay.num_alloc_retries) == (60 * MIB, 0)
