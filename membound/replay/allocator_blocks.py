"""The parts that the device allocator's replay is made of: blocks, pools of free blocks, and the snapshot that the memory viewer reads.

Source: PyTorch c10/cuda/CUDACachingAllocator.cpp (Block, BlockPool, BlockComparatorSize, SegmentInfo).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

# Every block is a multiple of this: c10/core/AllocatorConfig.h, kMinBlockSize.
MIN_BLOCK = 512
# Requests up to this come from the small pool: kSmallSize. A large block's remainder is split off only if it is larger than this.
SMALL_SIZE = 1 << 20
# Segment of the small pool, and its page in expandable segments: kSmallBuffer.
SMALL_SEGMENT = 2 << 20
# Large segments round up to this: kRoundLarge.
ROUND_LARGE = 2 << 20

FREE, ALLOCATED, PENDING, UNMAPPED = range(4)
# The names that torch.cuda.memory_snapshot gives to the first three; an unmapped range has no memory behind it and is not shown.
STATE_NAMES = ("inactive", "active_allocated", "active_awaiting_free")

# A free block's place in its pool is one integer, its size above its address: comparing integers is what the replay's speed rests on.
_ADDRESS_BITS = 39


class Block:
    """A range of device memory; `previous` and `next` are its neighbours in the segment.

    The first block of a segment stays the same object for the segment's life: splits keep the front, merges keep the lower block.
    """

    __slots__ = ("address", "birth", "events", "next", "pool", "previous", "requested", "size", "state", "used_on")

    def __init__(self, address: int, size: int, pool: Pool, state: int = FREE) -> None:
        self.address = address
        self.size = size
        self.pool = pool
        self.state = state
        self.requested = 0
        self.previous: Block | None = None
        self.next: Block | None = None
        self.used_on: set[int] | None = None
        self.events = 0
        self.birth = 0

    def cut(self, size: int, state: int) -> Block:
        """Keep the first `size` bytes; return the rest as a new block in `state`, linked behind this one and in no pool yet."""
        rest = Block(self.address + size, self.size - size, self.pool, state)
        after = self.next
        rest.previous = self
        rest.next = after
        if after is not None:
            after.previous = rest
        self.next = rest
        self.size = size
        return rest

    def swallow_next(self) -> None:
        """Take the next block's bytes; the next block is in no pool any more."""
        gone = self.next
        assert gone is not None
        self.size += gone.size
        self.next = after = gone.next
        if after is not None:
            after.previous = self


class Pool:
    """The free blocks of one stream and one kind (small, large), ordered by size and then by address; and its unmapped ranges, by address."""

    __slots__ = ("blocks", "keys", "page", "searches", "small", "split_above", "stream", "unmapped")

    def __init__(self, stream: int, small: bool, page: int, split_above: int, searches: list[int]) -> None:
        self.stream = stream
        self.small = small
        self.page = page
        self.split_above = split_above
        self.keys: list[int] = []
        self.blocks: list[Block] = []
        self.unmapped: list[Block] = []
        # Searches so far in all streams' pools of this kind, the clock of blocks' ages: BlockPool::get_free_blocks_call_count.
        self.searches = searches

    def add(self, block: Block) -> None:
        """Hold `block`, free."""
        block.birth = self.searches[0]
        key = block.size << _ADDRESS_BITS | block.address >> 9
        at = bisect_left(self.keys, key)
        self.keys.insert(at, key)
        self.blocks.insert(at, block)

    def remove(self, block: Block) -> None:
        """Let go of `block`, whose size and address are still those that it was added with."""
        at = bisect_left(self.keys, block.size << _ADDRESS_BITS | block.address >> 9)
        del self.keys[at], self.blocks[at]

    def first_of(self, size: int) -> int:
        """Index of the smallest free block of `size` or more; the number of blocks if there is none."""
        return bisect_left(self.keys, size << _ADDRESS_BITS)

    def pop(self, at: int) -> Block:
        """Let go of the block at an index."""
        del self.keys[at]
        return self.blocks.pop(at)


@dataclass(frozen=True)
class BlockView:
    """One block of a snapshot, in bytes. `state` is one of `STATE_NAMES`."""

    address: int
    size: int
    requested: int
    state: str


@dataclass(frozen=True)
class Segment:
    """One cudaMalloc, or one unbroken run of mapped pages of an expandable segment, with its blocks in address order."""

    address: int
    size: int
    stream: int
    pool: str
    expandable: bool
    blocks: tuple[BlockView, ...]


def runs(head: Block, expandable: bool) -> list[Segment]:
    """The mapped runs of the segment that begins at `head`: PyTorch reports each as a segment (DeviceCachingAllocator::snapshot)."""
    found: list[Segment] = []
    run: list[BlockView] = []
    block: Block | None = head
    while block is not None:
        if block.state != UNMAPPED:
            requested = block.requested if block.state != FREE else 0
            run.append(BlockView(block.address, block.size, requested, STATE_NAMES[block.state]))
        if run and (block.state == UNMAPPED or block.next is None):
            size = sum(view.size for view in run)
            found.append(Segment(run[0].address, size, head.pool.stream, "small" if head.pool.small else "large", expandable, tuple(run)))
            run = []
        block = block.next
    return found
