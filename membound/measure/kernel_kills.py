"""Whether the kernel killed processes for want of memory: its own counters, before and after."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

# Linux: /proc/vmstat since 4.13; cgroup v2, memory.events of the own group.
_VMSTAT: Final = Path("/proc/vmstat")
_CGROUP: Final = Path("/proc/self/cgroup")
_CGROUPS: Final = Path("/sys/fs/cgroup")


def count() -> int | None:
    """Processes that the kernel has killed for want of memory since it started, in the whole system or in the own group; None: it does not say."""
    found = [number for number in (_counter(_VMSTAT), _counter(_own_group() / "memory.events")) if number is not None]
    return max(found, default=None)


def _own_group() -> Path:
    try:
        line = next(text for text in _CGROUP.read_text().splitlines() if text.startswith("0::"))
    except (OSError, StopIteration):
        return _CGROUPS
    return _CGROUPS / line.removeprefix("0::").lstrip("/")


def _counter(path: Path) -> int | None:
    try:
        match = re.search(r"^oom_kill (\d+)$", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) if match else None
