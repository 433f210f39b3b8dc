"""Expandable segments: virtual ranges, larger than the device, whose pages are mapped when wanted and unmapped when the cache is emptied.

Functions of blocks and pools; the allocator keeps the account of bytes. Source: PyTorch c10/cuda/CUDACachingAllocator.cpp,
"Note [Expandable Segments]", find_expandable_block, map_block, unmap_block, get_free_block.
"""

from __future__ import annotations

from bisect import insort

from membound.replay.allocator_blocks import FREE, UNMAPPED, Block, Pool


def add_unmapped(block: Block) -> None:
    """Hold `block` among its pool's ranges without memory."""
    insort(block.pool.unmapped, block, key=_address)


def best_fit(pool: Pool, size: int) -> int | None:
    """Index of the free block for `size`: a block before unmapped room counts as large as it can grow, so that growing ends are used last."""
    at = pool.first_of(size)
    blocks = pool.blocks
    if at == len(blocks):
        return None
    while at + 1 < len(blocks) and _reach(blocks[at + 1]) < _reach(blocks[at]):
        at += 1
    return at


def find_room(pool: Pool, size: int) -> Block | None:
    """The lowest run of free and unmapped blocks with room for `size`; None if a new virtual segment is needed."""
    for block in pool.unmapped:
        before = block.previous
        start = before if before is not None and before.state == FREE else block
        if _has_room(start, size):
            return start
    return None


def map_pages(block: Block, size: int) -> tuple[Block, int]:
    """Map whole pages for the first `size` bytes of an unmapped block; return the free block that now holds them, and the bytes mapped."""
    pool = block.pool
    mapped = pages_for(size, pool.page)
    pool.unmapped.remove(block)
    if mapped < block.size:
        add_unmapped(block.cut(mapped, UNMAPPED))
    block.state = FREE
    before, after = block.previous, block.next
    if after is not None and after.state == FREE:
        pool.remove(after)
        block.swallow_next()
    if before is not None and before.state == FREE:
        pool.remove(before)
        before.swallow_next()
        block = before
    pool.add(block)
    return block, mapped


def unmap_pages(block: Block) -> tuple[Block, int]:
    """Unmap the pages that lie wholly within a free block; return the unmapped block and the bytes given back. Ranges begin at whole pages."""
    pool = block.pool
    begin = pages_for(block.address, pool.page)
    end = block.address + block.size
    end -= end % pool.page
    if begin >= end:
        return block, 0
    pool.remove(block)
    if end < block.address + block.size:
        pool.add(block.cut(end - block.address, FREE))
    if begin > block.address:
        rest = block.cut(begin - block.address, UNMAPPED)
        pool.add(block)
        block = rest
    block.state = UNMAPPED
    return _merge_unmapped(block), end - begin


def pages_for(size: int, page: int) -> int:
    """Bytes of the whole pages that hold `size` bytes."""
    return -(-size // page) * page


def _merge_unmapped(block: Block) -> Block:
    pool = block.pool
    before, after = block.previous, block.next
    if after is not None and after.state == UNMAPPED:
        pool.unmapped.remove(after)
        block.swallow_next()
    if before is not None and before.state == UNMAPPED:
        before.swallow_next()
        return before
    add_unmapped(block)
    return block


def _has_room(block: Block | None, size: int) -> bool:
    room = 0
    while room < size and block is not None and (block.state == FREE or block.state == UNMAPPED):
        room += block.size
        block = block.next
    return room >= size


def _reach(block: Block) -> int:
    after = block.next
    return block.size + (after.size if after is not None and after.state == UNMAPPED else 0)


def _address(block: Block) -> int:
    return block.address
