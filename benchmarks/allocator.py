"""How many allocations and frees the allocators' replay does in a second, on a trace shaped like training: run it, read the lines.

The aim is 300,000 events a second: a step of a 7B model is 30,000 to 200,000 events.
"""

from __future__ import annotations

import random
import time

from membound.replay.allocator_blocks import Block
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.caching_allocator import CachingAllocator
from membound.replay.pinned_allocator import PinnedAllocator, PinnedBlock

EVENTS = 100_000
# A few hundred distinct sizes, as a model's layers have; about this many tensors alive, as a deep model's activations are.
SIZES, ALIVE = 300, 2_000


def trace(seed: int) -> list[tuple[int, int]]:
    """Events: (size, name) to allocate, (0, name) to free; frees are mostly of what was allocated last."""
    chance = random.Random(seed)
    sizes = [chance.randrange(1, 1 << chance.choice((12, 20, 26))) for _ in range(SIZES)]
    alive: list[int] = []
    events = []
    for name in range(EVENTS):
        if alive and (len(alive) > ALIVE or chance.random() < 0.48):
            events.append((0, alive.pop(-1 - min(int(chance.expovariate(0.05)), len(alive) - 1))))
        else:
            events.append((chance.choice(sizes), name))
            alive.append(name)
    return events


def device_rate(text: str, events: list[tuple[int, int]]) -> float:
    """Events per second of the device allocator."""
    replay = CachingAllocator(None, AllocatorSettings.parse(text))
    blocks: dict[int, Block] = {}
    start = time.perf_counter()
    for size, name in events:
        if size:
            blocks[name] = replay.malloc(size, 0)
        else:
            replay.free(blocks.pop(name))
    return len(events) / (time.perf_counter() - start)


def pinned_rate(events: list[tuple[int, int]]) -> float:
    """Events per second of the pinned allocator."""
    replay = PinnedAllocator()
    blocks: dict[int, PinnedBlock] = {}
    start = time.perf_counter()
    for size, name in events:
        if size:
            blocks[name] = replay.malloc(size)
        else:
            replay.free(blocks.pop(name))
    return len(events) / (time.perf_counter() - start)


def main() -> None:
    """Print one line per setting, the best of three."""
    events = trace(0)
    for text in ("", "expandable_segments:True", "max_split_size_mb:128", "roundup_power2_divisions:8"):
        print(f"device, {text or 'default settings'}: {max(device_rate(text, events) for _ in range(3)):,.0f} events/s")
    print(f"pinned: {max(pinned_rate(events) for _ in range(3)):,.0f} events/s")


if __name__ == "__main__":
    main()
