"""What a walk through PyTorch's allocator found, apart from the allocator itself; kept, so that the same program is walked once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from membound.replay.allocator_walk import Walk
from membound.replay.caching_allocator import OutOfMemory

Column = npt.NDArray[np.int64]

# What decides a walk besides its program: a change of these makes every kept one stale.
_SOURCES = (
    "allocator_blocks",
    "allocator_settings",
    "allocator_walk",
    "caching_allocator",
    "cycles",
    "device_segments",
    "expandable_segments",
    "memory_program",
    "releases",
    "walked",
)


class Memo(Protocol):
    """Keeps arrays by content."""

    def get(self, key: str) -> Mapping[str, Column] | None:
        """The arrays of `key`, or None."""
        ...

    def put(self, key: str, arrays: Mapping[str, Column]) -> None:
        """Keep `arrays`."""
        ...


class Forgetful:
    """A Memo that keeps nothing."""

    def get(self, key: str) -> None:
        return None

    def put(self, key: str, arrays: Mapping[str, Column]) -> None: ...


@dataclass(frozen=True)
class Peak:
    """The most that was held, and how it ended."""

    reserved_peak: int
    """B"""
    retries: int
    """Times the allocator had to give back its cache to go on."""
    failure: OutOfMemory | None
    """Why the walk ended early."""
    reached: int
    """Events that were reached: the one after them is the one that failed."""


@dataclass(frozen=True)
class Walked:
    """One entry for each event that was reached."""

    sizes: Column
    """Bytes that the event added (allocation) or took away (free, negative)."""
    reserved: Column
    """Bytes held of the device after the event."""
    active_peak: int
    """B"""
    retries: int
    """Times the allocator had to give back its cache to go on."""
    failure: OutOfMemory | None
    """Why the walk ended early; the event at which it did is the one after the last."""

    @property
    def reserved_peak(self) -> int:
        """B"""
        return int(self.reserved.max(initial=0))

    @property
    def peak(self) -> Peak:
        """The most of it."""
        return Peak(self.reserved_peak, self.retries, self.failure, len(self.sizes))


def peaked(walk: Callable[[], Walk], parts: Iterable[Any], memo: Memo) -> Peak:
    """As `walked`, where only the most is wanted: of long programs little is kept."""
    key = _key(["peak", *parts])
    known = memo.get(key)
    if known is not None:
        reserved, retries, reached, *failure = known["numbers"].tolist()
        return Peak(reserved, retries, OutOfMemory(*failure) if failure else None, reached)
    done = walk()
    sizes, held = done.columns()
    found = Peak(int(held.max(initial=0)), done.retries, done.failure, len(sizes))
    memo.put(key, {"numbers": np.array([found.reserved_peak, found.retries, found.reached, *_told(found.failure)], np.int64)})
    return found


def walked(walk: Callable[[], Walk], parts: Iterable[Any], memo: Memo) -> Walked:
    """What `walk` finds, or found when it was last asked: `parts`, arrays and values, are all that it depends on."""
    key = _key(parts)
    known = memo.get(key)
    if known is not None:
        return _remembered(known)
    done = walk()
    sizes, reserved = done.columns()
    found = Walked(sizes, reserved, done.allocator.active_peak, done.retries, done.failure)
    memo.put(key, _arrays(found))
    return found


def _arrays(found: Walked) -> dict[str, Column]:
    numbers = np.array([found.active_peak, found.retries, *_told(found.failure)], np.int64)
    return {"sizes": found.sizes, "reserved": found.reserved, "numbers": numbers}


def _told(failure: OutOfMemory | None) -> list[int]:
    return [] if failure is None else [getattr(failure, name) for name in ("requested", "allocated", "reserved", "free", "tried")]


def _remembered(arrays: Mapping[str, Column]) -> Walked:
    active_peak, retries, *failure = arrays["numbers"].tolist()
    return Walked(arrays["sizes"], arrays["reserved"], active_peak, retries, OutOfMemory(*failure) if failure else None)


def _key(parts: Iterable[Any]) -> str:
    total = hashlib.sha256(_source_sum())
    for part in parts:
        if isinstance(part, np.ndarray):
            total.update(f"array of {part.size} {part.dtype}:".encode())
            total.update(np.ascontiguousarray(part).data)
        else:
            total.update(f"{part!r};".encode())
    return total.hexdigest()


@cache
def _source_sum() -> bytes:
    here = Path(__file__).parent
    return hashlib.sha256(b"\0".join((here / f"{name}.py").read_bytes() for name in _SOURCES)).digest()
