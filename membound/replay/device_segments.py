"""What a caching allocator holds of its device: segments from cudaMalloc or pages of expandable segments, taken when wanted and given back.

Source: PyTorch c10/cuda/CUDACachingAllocator.cpp, functions named where they are followed.
"""

from __future__ import annotations

from collections.abc import Iterable

from membound.replay import expandable_segments as expandable
from membound.replay.allocator_blocks import ROUND_LARGE, SMALL_SEGMENT, SMALL_SIZE, UNMAPPED, Block, Pool
from membound.replay.allocator_settings import MIN_LARGE_ALLOC, AllocatorSettings

_FIRST_ADDRESS = 0x7F << 40
# Assumed of a device of unknown size, only to size virtual ranges: larger than any GPU's memory.
_UNKNOWN_TOTAL = 1 << 40


class DeviceSegments:
    """Segments of one device. `capacity`: bytes that may be reserved in all (None: no end); `total`: the device's whole memory.

    `heads` holds the first block of each segment; `reserved` and `reserved_peak` are bytes; `count` is of cudaMallocs alive.
    """

    __slots__ = ("_next_address", "allowed", "capacity", "count", "heads", "reserved", "reserved_peak", "settings", "total")

    def __init__(self, capacity: int | None, settings: AllocatorSettings, total: int | None) -> None:
        self.settings = settings
        self.capacity = capacity
        self.total = total if total is not None else capacity if capacity is not None else _UNKNOWN_TOTAL
        fraction = settings.per_process_memory_fraction
        # DeviceCachingAllocator::setMemoryFraction: the whole device is no limit at all.
        self.allowed = int(fraction * self.total) if fraction < 1.0 else None
        self.heads: dict[Block, None] = {}
        self.count = self.reserved = self.reserved_peak = 0
        self._next_address = _FIRST_ADDRESS

    @property
    def free(self) -> int:
        """Bytes that may still be reserved."""
        return max(0, (self.total if self.capacity is None else self.capacity) - self.reserved)

    def refuses(self, size: int) -> bool:
        """Whether `throw_on_cudamalloc_oom` forbids even to try; a limit by fraction is looked at before it (alloc_block)."""
        return self.settings.throw_on_cudamalloc_oom and self.allowed is None and self.reserved + size > self.total

    def reserve(self, pool: Pool, rounded: int) -> Block | None:
        """New free memory for a block of `rounded` bytes, in no pool; None if there is none (alloc_block)."""
        size = segment_size(rounded, self.settings)
        if (self.allowed is not None and self.reserved + size > self.allowed) or self.refuses(size):
            return None
        if self.settings.expandable_segments:
            return self._expand(pool, rounded)
        if not self._fits(size):
            return None
        block = Block(self._take_addresses(size, ROUND_LARGE), size, pool)
        self.heads[block] = None
        self.count += 1
        self._add_reserved(size)
        return block

    def give_back(self, block: Block) -> None:
        """Return a wholly free segment to the device (release_block)."""
        block.pool.remove(block)
        del self.heads[block]
        self.count -= 1
        self.reserved -= block.size

    def give_back_all(self, pool: Pool) -> None:
        """Return all segments, or pages, of a pool that no block in use touches (release_blocks)."""
        for block in list(pool.blocks):
            if self.settings.expandable_segments:
                self._unmap(block)
            elif block.previous is None and block.next is None:
                self.give_back(block)

    def give_back_oversize(self, pool: Pool, size: int) -> bool:
        """Return blocks that max_split_size keeps whole; whether that makes room for `size` (release_available_cached_blocks)."""
        limit = self.settings.max_split_size
        if limit is None or self.settings.expandable_segments:
            return False
        wanted = max(size, limit)
        at = pool.first_of(wanted)
        if at < len(pool.blocks):
            self.give_back(pool.blocks[at])
            return True
        returned = 0
        while returned < wanted and pool.blocks and pool.blocks[-1].size >= limit:
            returned += pool.blocks[-1].size
            self.give_back(pool.blocks[-1])
        return returned >= wanted

    def collect_garbage(self, pools: Iterable[Pool], now: int) -> None:
        """Above the threshold, return the large segments that lay free for longest (garbage_collect_cached_blocks)."""
        if self.allowed is None or self.settings.expandable_segments:
            return
        excess = self.reserved - int(self.settings.garbage_collection_threshold * self.allowed)
        whole = [block for pool in pools for block in pool.blocks if block.previous is None and block.next is None]
        while whole and excess > 0:
            mean_age = sum(now - block.birth for block in whole) / len(whole)
            for block in [block for block in whole if now - block.birth >= mean_age]:
                excess -= block.size
                whole.remove(block)
                self.give_back(block)

    def _expand(self, pool: Pool, size: int) -> Block | None:
        """A free block of at least `size`, made by mapping pages (try_allocate_expandable_block)."""
        block = expandable.find_room(pool, size) or self._new_range(pool)
        while block.state == UNMAPPED or block.size < size:
            target = block if block.state == UNMAPPED else block.next
            assert target is not None
            missing = min(size if target is block else size - block.size, target.size)
            if not self._fits(expandable.pages_for(missing, pool.page)):
                return None
            block, mapped = expandable.map_pages(target, missing)
            self._add_reserved(mapped)
        pool.remove(block)
        return block

    def _new_range(self, pool: Pool) -> Block:
        # One eighth more than the device, so that pages can move to the range's end: ExpandableSegment's constructor.
        extent = expandable.pages_for(self.total + self.total // 8, pool.page)
        block = Block(self._take_addresses(extent, pool.page), extent, pool, UNMAPPED)
        self.heads[block] = None
        expandable.add_unmapped(block)
        return block

    def _unmap(self, block: Block) -> None:
        block, returned = expandable.unmap_pages(block)
        self.reserved -= returned
        if returned and block.previous is None and block.next is None:
            block.pool.unmapped.remove(block)
            del self.heads[block]

    def _fits(self, size: int) -> bool:
        return self.capacity is None or self.reserved + size <= self.capacity

    def _add_reserved(self, size: int) -> None:
        self.reserved += size
        self.reserved_peak = max(self.reserved_peak, self.reserved)

    def _take_addresses(self, size: int, unit: int) -> int:
        address = expandable.pages_for(self._next_address, unit)
        self._next_address = address + size
        return address


def segment_size(rounded: int, settings: AllocatorSettings) -> int:
    """Bytes of the segment that is asked of the device for a block of `rounded` bytes (get_allocation_size)."""
    if rounded <= SMALL_SIZE:
        return SMALL_SEGMENT
    if rounded < MIN_LARGE_ALLOC:
        return settings.large_segment_size
    return -(-rounded // ROUND_LARGE) * ROUND_LARGE
