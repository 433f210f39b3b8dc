"""What `PYTORCH_ALLOC_CONF` (formerly `PYTORCH_CUDA_ALLOC_CONF`) may say, as far as it changes which bytes are held.

Source: PyTorch c10/core/AllocatorConfig.{h,cpp}, c10/cuda/CUDAAllocatorConfig.{h,cpp}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from membound.errors import InputError, UnknownNameError

FIELD = "PYTORCH_ALLOC_CONF"
MIB = 1 << 20

# Request sizes from 1 MiB to 64 GiB fall in 16 intervals, one per power of two: c10/core/AllocatorConfig.cpp, kRoundUpPowerOfTwoIntervals.
ROUNDUP_INTERVALS = 16
# "allocations between 1 and 10 MiB may use" the large segment, which so has to be larger: c10/core/AllocatorConfig.h, kMinLargeAlloc.
MIN_LARGE_ALLOC = 10 * MIB


@dataclass(frozen=True)
class AllocatorSettings:
    """Settings of the device and of the pinned host allocator. The defaults are PyTorch's; sizes in bytes; None means no limit."""

    expandable_segments: bool = False
    """One growing virtual segment per stream and pool, instead of one cudaMalloc per segment."""
    large_segment_size: int = 20 * MIB
    """Segment that holds requests of 1 to 10 MiB, and the page of expandable segments' large pool."""
    max_split_size: int | None = None
    """Free blocks of this size or more are not split."""
    max_non_split_rounding: int | None = None
    """By how much a block that may not be split may exceed the request that it serves; `large_segment_size` if None."""
    garbage_collection_threshold: float = 0.0
    """Share of the allowed memory above which old cached segments are returned; 0 is off. Acts only if `per_process_memory_fraction` < 1."""
    roundup_power2_divisions: tuple[int, ...] = ()
    """Divisions between two powers of two that requests round up to, one number per interval from 1 MiB up; empty is off."""
    per_process_memory_fraction: float = 1.0
    """Share of the device's memory that the process may reserve."""
    throw_on_cudamalloc_oom: bool = False
    """Refuse what would exceed the fraction at once, without first emptying the cache (PyTorch 2.13)."""
    pinned_max_round_threshold: int | None = None
    """Pinned requests above this are not rounded up to a power of two (PyTorch 2.13)."""
    pinned_max_cached_size: int | None = None
    """Pinned blocks above this are neither rounded nor cached: freeing them returns them (PyTorch 2.13)."""
    pinned_reserve_segment_size: int = 0
    """Pinned memory taken whole at the first request, from which blocks are then cut; 0 is off."""

    @classmethod
    def parse(cls, text: str) -> AllocatorSettings:
        """Read a text such as 'expandable_segments:True,max_split_size_mb:128'. Raises `InputError` for what PyTorch would refuse."""
        values: dict[str, Any] = {}
        for key, value in _pairs(text):
            if key not in _READERS:
                raise UnknownNameError(FIELD, key, _READERS)
            name, read = _READERS[key]
            read_value = read(key, value)
            if name is not None:
                values[name] = read_value
        settings = cls(**values)
        settings.check()
        return settings

    def check(self) -> None:
        """Raise `InputError` if a size is below what PyTorch accepts."""
        if self.large_segment_size <= MIN_LARGE_ALLOC:
            raise InputError(FIELD, f"large_segment_size_mb:{self.large_segment_size // MIB}", "write more than 10")
        for name, size in (("max_split_size_mb", self.max_split_size), ("max_non_split_rounding_mb", self.max_non_split_rounding)):
            if size is not None and size < self.large_segment_size:
                raise InputError(FIELD, f"{name}:{size // MIB}", f"write at least {self.large_segment_size // MIB}, the large segment's size")

    def divisions(self, size: int) -> int:
        """Into how many parts the power-of-two interval that holds `size` is divided; 0 or 1: plain rounding to 512 B."""
        if not self.roundup_power2_divisions:
            return 0
        interval = size.bit_length() - MIB.bit_length()
        return self.roundup_power2_divisions[min(max(interval, 0), ROUNDUP_INTERVALS - 1)]


_PAIR = re.compile(r"([^,:\[\]]+):(\[[^\[\]]*\]|[^,:\[\]]+)(,|$)")


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    squeezed = "".join(text.split())
    position = 0
    while position < len(squeezed):
        match = _PAIR.match(squeezed, position)
        if match is None:
            raise InputError(FIELD, squeezed[position:], "write key:value pairs with commas between them, such as expandable_segments:True")
        yield match[1], match[2]
        position = match.end()


def _flag(key: str, value: str) -> bool:
    if value not in {"True", "False"}:
        raise InputError(FIELD, f"{key}:{value}", "write True or False")
    return value == "True"


def _whole(key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise InputError(FIELD, f"{key}:{value}", "write a whole number")
    return int(value)


def _mebibytes(key: str, value: str) -> int:
    return _whole(key, value) * MIB


def _some_mebibytes(key: str, value: str) -> int:
    if _whole(key, value) == 0:
        raise InputError(FIELD, f"{key}:{value}", "write more than 0, or leave it out")
    return _mebibytes(key, value)


def _fraction(key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0.0 <= number <= 1.0:
        raise InputError(FIELD, f"{key}:{value}", "write a number from 0 to 1")
    return number


def _threshold(key: str, value: str) -> float:
    number = _fraction(key, value)
    if number in {0.0, 1.0}:
        raise InputError(FIELD, f"{key}:{value}", "write a number between 0 and 1")
    return number


def _backend(key: str, value: str) -> None:
    if value == "cudaMallocAsync":
        raise InputError(FIELD, f"{key}:{value}", "only the native allocator can be replayed: write backend:native")
    if value != "native":
        raise InputError(FIELD, f"{key}:{value}", "write native")


def _divisions(key: str, value: str) -> tuple[int, ...]:
    """'4' for all intervals, or '[256:1,512:2,>:8]' by MiB: c10/core/AllocatorConfig.cpp, parseRoundUpPower2Divisions."""
    if not value.startswith("["):
        return (_power_of_two(key, value),) * ROUNDUP_INTERVALS
    table = [0] * ROUNDUP_INTERVALS
    last, first = 0, True
    for entry in filter(None, value[1:-1].split(",")):
        bound, _, count = entry.partition(":")
        parts = 0 if count == "0" else _power_of_two(key, count)
        if bound == ">":
            table[last + 1 :] = [parts] * (ROUNDUP_INTERVALS - last - 1)
            continue
        last = min(_power_of_two(key, bound).bit_length() - 1, ROUNDUP_INTERVALS - 1)
        if first:
            table[:last] = [parts] * last
            first = False
        table[last] = parts
    return tuple(table)


def _power_of_two(key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()) or int(value).bit_count() != 1:
        raise InputError(FIELD, f"{key}:{value}", "write powers of two, such as 4 or [256:1,512:2,>:8]")
    return int(value)


# Key as PyTorch reads it -> our field (None: checked, but it moves no bytes) and how its value is read.
_READERS: dict[str, tuple[str | None, Callable[[str, str], object]]] = {
    "backend": (None, _backend),
    "expandable_segments": ("expandable_segments", _flag),
    "garbage_collection_threshold": ("garbage_collection_threshold", _threshold),
    "graph_capture_record_stream_reuse": (None, _flag),
    "large_segment_size_mb": ("large_segment_size", _mebibytes),
    "max_non_split_rounding_mb": ("max_non_split_rounding", _mebibytes),
    "max_split_size_mb": ("max_split_size", _mebibytes),
    "per_process_memory_fraction": ("per_process_memory_fraction", _fraction),
    "pinned_free_catch_all": (None, _flag),
    "pinned_max_cached_size_mb": ("pinned_max_cached_size", _mebibytes),
    "pinned_max_round_threshold_mb": ("pinned_max_round_threshold", _mebibytes),
    "pinned_num_register_threads": (None, _power_of_two),
    "pinned_reserve_segment_size_mb": ("pinned_reserve_segment_size", _some_mebibytes),
    "pinned_use_background_threads": (None, _flag),
    "pinned_use_cuda_host_register": (None, _flag),
    "release_lock_on_cudamalloc": (None, _flag),
    "roundup_power2_divisions": ("roundup_power2_divisions", _divisions),
    "throw_on_cudamalloc_oom": ("throw_on_cudamalloc_oom", _flag),
}
