"""What PYTORCH_ALLOC_CONF may say, against c10/core/AllocatorConfig.cpp."""

from __future__ import annotations

import pytest

from membound.errors import InputError, UnknownNameError
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.caching_allocator import round_size

KIB, MIB = 1 << 10, 1 << 20


def test_roundup_to_divisions_of_a_power_of_two() -> None:
    """The source's example: 1200 with 4 divisions between 1024 and 2048 is 1280; below 512 B times divisions plain rounding holds."""
    four = AllocatorSettings.parse("roundup_power2_divisions:4")
    assert round_size(1200 * KIB, four) == 1280 * KIB
    assert round_size(2048 * KIB, four) == 2048 * KIB
    assert round_size(1200, four) == 1536
    by_size = AllocatorSettings.parse("roundup_power2_divisions:[4:2,16:8,>:1]")
    assert [by_size.divisions(size * MIB) for size in (1, 2, 4, 8, 16, 32, 1024)] == [2, 2, 2, 0, 8, 1, 1]
    assert round_size(17 * MIB, by_size) == 18 * MIB
    assert round_size(33 * MIB + 1, by_size) == 33 * MIB + 512


def test_settings_are_read_as_pytorch_reads_them() -> None:
    read = AllocatorSettings.parse(" expandable_segments:True, max_split_size_mb:128,garbage_collection_threshold:0.8,backend:native,")
    assert read == AllocatorSettings(expandable_segments=True, max_split_size=128 * MIB, garbage_collection_threshold=0.8)
    assert AllocatorSettings.parse("") == AllocatorSettings()


@pytest.mark.parametrize(
    "text",
    [
        "expandable_segments", "expandable_segments:true", "expandable_segments:True;a:1", "max_split_size_mb:19", "max_split_size_mb:1.5",
        "max_split_size_mb:-1", "large_segment_size_mb:10", "large_segment_size_mb:64,max_split_size_mb:40", "garbage_collection_threshold:1",
        "garbage_collection_threshold:x", "roundup_power2_divisions:3", "roundup_power2_divisions:[3:4]", "roundup_power2_divisions:[4:3]",
        "roundup_power2_divisions:[4:2", "backend:cudaMallocAsync", "backend:mine", ",", "per_process_memory_fraction:2",
        "pinned_reserve_segment_size_mb:0",
    ],
)  # fmt: skip
def test_settings_that_pytorch_refuses_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="PYTORCH_ALLOC_CONF"):
        AllocatorSettings.parse(text)


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="expandable_segments"):
        AllocatorSettings.parse("expandable_segment:True")
