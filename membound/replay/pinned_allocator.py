"""PyTorch's allocator of pinned host memory, replayed: blocks of powers of two, kept for reuse when freed and never divided.

Source: PyTorch aten/src/ATen/core/CachingHostAllocator.h and aten/src/ATen/cuda/CachingHostAllocator.cpp (2.11 to 2.13). Whether a block comes
from cudaHostAlloc or from cudaHostRegister (`pinned_use_cuda_host_register`) changes how long pinning takes, not how much is held.
"""

from __future__ import annotations

import math
from collections import deque

from membound.replay.allocator_settings import AllocatorSettings

# Blocks cut from the reserve segment are whole pages: CachingHostAllocator.h, PinnedReserveSegment::allocate.
_PAGE = 4096


class PinnedBlock:
    """A pinned host buffer of `size` bytes, of which `requested` were asked for."""

    __slots__ = ("events", "from_reserve", "live", "requested", "size", "used_on")

    def __init__(self, size: int, from_reserve: bool) -> None:
        self.size = size
        self.from_reserve = from_reserve
        self.requested = 0
        self.live = True
        self.used_on: set[int] = set()
        self.events = 0


class _Event:
    __slots__ = ("block", "passed", "stream", "when")

    def __init__(self, block: PinnedBlock, stream: int, when: float) -> None:
        self.block = block
        self.stream = stream
        self.when = when
        self.passed = False


class PinnedAllocator:
    """The pinned memory of one process. No block has less than its request, none is ever split, and there is no limit but the host's.

    Current and peak bytes: `used` (blocks live or awaiting streams, `active_bytes` in `torch.cuda.host_memory_stats`, which in 2.11 does not
    fall at a free), `requested` (of the live ones), `reserved` (what the host really holds: all blocks, cached ones too, and the reserve
    segment). `num_host_alloc` and `num_host_free` count the slow calls to the driver.
    """

    __slots__ = (
        "_cached", "_events", "_reserve_left", "num_host_alloc", "num_host_free", "requested", "requested_peak", "reserved",
        "reserved_peak", "settings", "used", "used_peak",
    )  # fmt: skip

    def __init__(self, settings: AllocatorSettings | None = None) -> None:
        self.settings = settings or AllocatorSettings()
        # Free blocks by size class; the class is the exponent of the next power of two (size_index).
        self._cached: dict[int, list[PinnedBlock]] = {}
        self._events: deque[_Event] = deque()
        self._reserve_left: int | None = None
        self.used = self.used_peak = self.requested = self.requested_peak = self.reserved = self.reserved_peak = 0
        self.num_host_alloc = self.num_host_free = 0

    def malloc(self, size: int) -> PinnedBlock:
        """Allocate `size` > 0 bytes, from the cache if a block of the class lies there (allocate)."""
        assert size > 0
        rounded = pinned_size(size, self.settings)
        block = self._from_cache(rounded) or self._from_host(rounded)
        block.live = True
        block.requested = size
        self.used += block.size
        self.requested += size
        self.used_peak = max(self.used_peak, self.used)
        self.requested_peak = max(self.requested_peak, self.requested)
        return block

    def record_stream(self, block: PinnedBlock, stream: int) -> None:
        """Note that a copy on `stream` uses a live block: every non-blocking copy does (record_event)."""
        assert block.live
        block.used_on.add(stream)

    def free(self, block: PinnedBlock, when: float = 0.0) -> None:
        """Free a live block. It is cached only once every stream that used it has passed an event that it meets now, marked `when`."""
        assert block.live
        block.live = False
        self.requested -= block.requested
        block.events = len(block.used_on)
        for stream in sorted(block.used_on):
            self._events.append(_Event(block, stream, when))
        block.used_on.clear()
        if block.events == 0:
            self._retire(block)

    def synchronise(self, stream: int | None = None, until: float = math.inf) -> None:
        """`stream` (None: every stream) has passed its events marked up to `until`.

        Events are looked at in the order of the frees, whatever their stream, and looking ends at the first that has not passed
        (process_events): one slow stream keeps the others' blocks.
        """
        for event in self._events:
            if event.when <= until and (stream is None or event.stream == stream):
                event.passed = True
        while self._events and self._events[0].passed:
            block = self._events.popleft().block
            block.events -= 1
            if block.events == 0:
                self._retire(block)

    def empty_cache(self) -> None:
        """Return all cached blocks to the host. Nothing is waited for, and the reserve segment stays (empty_cache, free_block)."""
        for blocks in self._cached.values():
            for block in blocks:
                self._to_host(block)
        self._cached.clear()

    def reset_peaks(self) -> None:
        """Peaks begin anew from what is held now."""
        self.used_peak, self.requested_peak, self.reserved_peak = self.used, self.requested, self.reserved

    def _from_cache(self, size: int) -> PinnedBlock | None:
        cached = self._cached.get(size_class(size), [])
        for at in range(len(cached) - 1, -1, -1):
            # Sizes differ within a class only above pinned_max_round_threshold; there 2.13 hands out blocks that are too small (a heap
            # overflow, pytorch pull request 192722). We follow the repaired rule, the last block that is large enough.
            if cached[at].size >= size:
                return cached.pop(at)
        return None

    def _from_host(self, size: int) -> PinnedBlock:
        if self.settings.pinned_reserve_segment_size and self._reserve_left is None:
            self._reserve_left = self.settings.pinned_reserve_segment_size
            self._hold(self._reserve_left)
        pages = -(-size // _PAGE) * _PAGE
        if self._reserve_left is not None and pages <= self._reserve_left:
            self._reserve_left -= pages
            return PinnedBlock(size, from_reserve=True)
        self._hold(size)
        return PinnedBlock(size, from_reserve=False)

    def _retire(self, block: PinnedBlock) -> None:
        """Cache a block that nothing uses any more, or return it if it is too large to be cached (maybe_cache_block)."""
        self.used -= block.size
        limit = self.settings.pinned_max_cached_size
        if limit is not None and block.size > limit:
            self._to_host(block)
        else:
            self._cached.setdefault(size_class(block.size), []).append(block)

    def _to_host(self, block: PinnedBlock) -> None:
        if not block.from_reserve:
            self.num_host_free += 1
            self.reserved -= block.size

    def _hold(self, size: int) -> None:
        self.num_host_alloc += 1
        self.reserved += size
        self.reserved_peak = max(self.reserved_peak, self.reserved)


def size_class(size: int) -> int:
    """Exponent of the smallest power of two that is not below `size`."""
    return (size - 1).bit_length()


def pinned_size(size: int, settings: AllocatorSettings) -> int:
    """Bytes of the block for a request: the next power of two, from 1 B on (there is no least size); exact above the settings' limits."""
    for limit in (settings.pinned_max_round_threshold, settings.pinned_max_cached_size):
        if limit is not None and size > limit:
            return size
    return 1 << size_class(size)
