"""PyTorch's device allocator, replayed: which blocks and segments a sequence of allocations and frees makes, and when it runs out of memory.

Source of the rules: PyTorch c10/cuda/CUDACachingAllocator.cpp (2.11 to 2.13), functions named where they are followed. Not replayed: graph
capture and private pools. Given the driver's addresses the replay is exact; ours only ever rise, so between two free blocks of one size in
different segments the choice, which goes by address, may differ from a real run's.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from dataclasses import dataclass

from membound.replay import expandable_segments as expandable
from membound.replay.allocator_blocks import ALLOCATED, FREE, MIN_BLOCK, PENDING, SMALL_SEGMENT, SMALL_SIZE, Block, Pool, Segment, runs
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.device_segments import DeviceSegments, segment_size

_NO_LIMIT = sys.maxsize


@dataclass(eq=False)
class OutOfMemory(Exception):
    """No memory for a request, even with the cache emptied. In bytes; `tried` is what PyTorch's message says it tried to allocate."""

    requested: int
    allocated: int
    reserved: int
    free: int
    tried: int


class CachingAllocator:
    """The allocator of one device. `capacity`: bytes that it may reserve in all (None: no end); `total`: the device's whole memory.

    Current and peak bytes, as `torch.cuda.memory_stats` names them: `allocated` (live blocks), `requested` (asked for, until the free completes),
    `active` (also blocks freed but awaiting other streams), `reserved` (segments, or mapped pages), `inactive_split` (free, but in a segment
    that is in use; not counted in expandable segments). `num_sync_all_streams` counts the host's waits for all streams.
    """

    __slots__ = (
        "_collects", "_expands", "_no_split_from", "_pending", "_pools", "_searches", "_segments", "active", "active_peak", "allocated",
        "allocated_peak", "inactive_split", "num_alloc_retries", "num_ooms", "num_sync_all_streams", "requested", "settings",
    )  # fmt: skip

    def __init__(self, capacity: int | None, settings: AllocatorSettings | None = None, total: int | None = None) -> None:
        self.settings = settings = settings or AllocatorSettings()
        self._segments = DeviceSegments(capacity, settings, total)
        # DeviceCachingAllocator::malloc: without a limit by fraction nothing is collected.
        self._collects = self._segments.allowed is not None and settings.garbage_collection_threshold > 0.0
        self._expands = settings.expandable_segments
        self._no_split_from = _NO_LIMIT if settings.max_split_size is None else settings.max_split_size
        # Pools by stream: the small ones, the large ones.
        self._pools: tuple[dict[int, Pool], dict[int, Pool]] = ({}, {})
        self._searches = ([0], [0])
        self._pending: dict[int, deque[tuple[float, Block]]] = {}
        self.allocated = self.allocated_peak = self.active = self.active_peak = self.requested = self.inactive_split = 0
        self.num_alloc_retries = self.num_ooms = self.num_sync_all_streams = 0

    @property
    def capacity(self) -> int | None:
        """Bytes that may be reserved in all; settable, for others' allocations on the device."""
        return self._segments.capacity

    @capacity.setter
    def capacity(self, capacity: int | None) -> None:
        self._segments.capacity = capacity

    @property
    def reserved(self) -> int:
        """Bytes held of the device."""
        return self._segments.reserved

    @property
    def reserved_peak(self) -> int:
        """Most bytes held of the device."""
        return self._segments.reserved_peak

    @property
    def num_segments(self) -> int:
        """cudaMallocs alive; expandable segments are not counted, as in PyTorch's statistics."""
        return self._segments.count

    def malloc(self, size: int, stream: int = 0) -> Block:
        """Allocate `size` > 0 bytes for work on `stream`. Raises `OutOfMemory`. (Tensors of no bytes never reach PyTorch's allocator.)"""
        assert size > 0
        rounded = round_size(size, self.settings) if self.settings.roundup_power2_divisions else (size + 511) & -512
        pool = self._pools[rounded > SMALL_SIZE].get(stream)
        if pool is None:
            pool = self._new_pool(rounded <= SMALL_SIZE, stream)
        at = self._find(pool, rounded)
        block = pool.pop(at) if at is not None else self._grow(pool, rounded, size)
        if not self._expands:
            self._split(block, rounded)
        elif block.size > rounded:
            pool.add(block.cut(rounded, FREE))
        block.state = ALLOCATED
        block.requested = size
        taken = block.size
        self.requested += size
        self.allocated = allocated = self.allocated + taken
        if allocated > self.allocated_peak:
            self.allocated_peak = allocated
        self.active = active = self.active + taken
        if active > self.active_peak:
            self.active_peak = active
        return block

    def free(self, block: Block, when: float = 0.0) -> None:
        """Free a live block. If other streams used it, it can be reused only when each has passed an event that it meets now, marked `when`."""
        assert block.state == ALLOCATED
        self.allocated -= block.size
        if block.used_on is None:
            self._release(block)
            return
        block.state = PENDING
        block.events = len(block.used_on)
        for stream in sorted(block.used_on):
            self._pending.setdefault(stream, deque()).append((when, block))
        block.used_on = None

    def record_stream(self, block: Block, stream: int) -> None:
        """Note that work on `stream` uses a live block; on the block's own stream this means nothing (recordStream)."""
        assert block.state == ALLOCATED
        if stream != block.pool.stream:
            if block.used_on is None:
                block.used_on = set()
            block.used_on.add(stream)

    def synchronise(self, stream: int | None = None, until: float = math.inf) -> None:
        """`stream` (None: every stream) has passed its events marked up to `until`: release the blocks that waited for them alone.

        PyTorch looks for passed events at each allocation (process_events), in each stream's order: say what has passed before `malloc`.
        """
        for each in list(self._pending) if stream is None else [stream]:
            events = self._pending.get(each)
            while events and events[0][0] <= until:
                block = events.popleft()[1]
                block.events -= 1
                if block.events == 0:
                    self._release(block)
            if not events:
                self._pending.pop(each, None)

    def empty_cache(self) -> None:
        """Wait for all streams' events, then give back every segment, or page, that no live block is in (release_cached_blocks)."""
        self.num_sync_all_streams += 1
        self.synchronise()
        for pools in self._pools:
            for pool in pools.values():
                self._segments.give_back_all(pool)

    def reset_peaks(self) -> None:
        """Peaks begin anew from what is held now (torch.cuda.reset_peak_memory_stats)."""
        self.allocated_peak, self.active_peak = self.allocated, self.active
        self._segments.reserved_peak = self._segments.reserved

    def segments(self) -> list[Segment]:
        """What is reserved now and how it is divided, in address order."""
        found = [segment for head in self._segments.heads for segment in runs(head, self._expands)]
        return sorted(found, key=lambda segment: segment.address)

    def idle(self) -> list[object]:
        """What is free, and what is unmapped, in every pool: with the blocks in use, all that decides what later requests get, ages aside."""
        pools = [(number, pool) for number, kind in enumerate(self._pools) for pool in kind.values()]
        return [(number, pool.stream, list(pool.keys), [(each.address, each.size) for each in pool.unmapped]) for number, pool in pools]

    def _new_pool(self, small: bool, stream: int) -> Pool:
        page = SMALL_SEGMENT if small else self.settings.large_segment_size
        # should_split: small and expandable blocks keep no remainder that could be a block; large ones keep up to 1 MiB.
        split_above = MIN_BLOCK - 1 if small or self._expands else SMALL_SIZE
        pool = self._pools[not small][stream] = Pool(stream, small, page, split_above, self._searches[not small])
        return pool

    def _find(self, pool: Pool, size: int) -> int | None:
        """Index of the best free block for `size` (get_free_block)."""
        if self._collects:
            pool.searches[0] += 1
        at: int | None
        if self._expands:
            at = expandable.best_fit(pool, size)
        else:
            at = pool.first_of(size)
            if at == len(pool.keys):
                at = None
        limit = self.settings.max_split_size
        if at is None or limit is None:
            return at
        found = pool.blocks[at].size
        if size < limit:
            return at if found < limit else None
        slack = self.settings.max_non_split_rounding or self.settings.large_segment_size
        return at if found < size + slack else None

    def _split(self, block: Block, size: int) -> None:
        """Give what `block` has beyond `size` back to the pool if the rules let it be split, and keep the account of split free bytes."""
        pool = block.pool
        was_split = block.previous is not None or block.next is not None
        if block.size - size > pool.split_above and size < self._no_split_from:
            rest = block.cut(size, FREE)
            pool.add(rest)
            self.inactive_split += -size if was_split else rest.size
        elif was_split:
            self.inactive_split -= block.size

    def _release(self, block: Block) -> None:
        """Make a block free and merge it with free neighbours (free_block, try_merge_blocks)."""
        pool = block.pool
        self.active -= block.size
        self.requested -= block.requested
        block.state = FREE
        merged = 0
        after = block.next
        if after is not None and after.state == FREE:
            merged = after.size
            pool.remove(after)
            block.swallow_next()
        before = block.previous
        if before is not None and before.state == FREE:
            merged += before.size
            pool.remove(before)
            before.swallow_next()
            block = before
        pool.add(block)
        if not self._expands:
            split = block.previous is not None or block.next is not None
            self.inactive_split += (block.size if split else 0) - merged

    def _grow(self, pool: Pool, rounded: int, size: int) -> Block:
        """New memory for a request that no free block serves: the retries of DeviceCachingAllocator::malloc, in their order."""
        segments = self._segments
        if self._collects:
            segments.collect_garbage(self._pools[1].values(), self._searches[1][0])
        tried = segment_size(rounded, self.settings)
        block = segments.reserve(pool, rounded)
        if block is None and not segments.refuses(tried):
            if segments.give_back_oversize(pool, rounded):
                block = segments.reserve(pool, rounded)
            if block is None:
                self.empty_cache()
                self.num_alloc_retries += 1
                block = segments.reserve(pool, rounded)
        if block is None:
            self.num_ooms += 1
            raise OutOfMemory(size, self.allocated, self.reserved, segments.free, tried)
        return block


def round_size(size: int, settings: AllocatorSettings) -> int:
    """Bytes of the block for a request of `size`: whole 512 B, or the next division between two powers of two (round_size)."""
    parts = settings.divisions(size) if size >= MIN_BLOCK else 0
    if parts <= 1 or size <= MIN_BLOCK * parts:
        return -(-size // MIN_BLOCK) * MIN_BLOCK
    step = (1 << size.bit_length() - 1) // parts
    return -(-size // step) * step
