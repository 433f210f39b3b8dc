"""What PyTorch's allocators say of one rank: on a GPU, bytes allocated, active and reserved; on the host, pinned bytes and the resident set."""

from __future__ import annotations

import resource
import threading
import time
from types import TracebackType
from typing import Any, Final, Self

import psutil
import torch

from membound.measure.marks import Marks

# Kilobytes on Linux: getrusage(2), ru_maxrss.
_RSS_UNIT: Final = 1024


class Memory:
    """Notes a rank's memory: now, at the border of a phase, and by a thread every `period` seconds while it is entered."""

    def __init__(self, marks: Marks, device: torch.device, period: float) -> None:
        self._marks = marks
        self._device = device
        self._period = period
        self._noted = -period
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self) -> None:
        """One line with the allocator's bytes, unless there was one just before; nothing on a host, whose allocator keeps no count."""
        now = time.monotonic()
        # Asking the allocator takes as long as several launches do.
        if self._device.type != "cuda" or now - self._noted < self._period / 4:
            return
        self._noted = now
        # The nested form costs a third of the flat one, which rebuilds every name.
        stats = torch.cuda.memory.memory_stats_as_nested_dict(self._device)
        if stats:  # empty until something was allocated
            allocated, reserved = stats["allocated_bytes"]["all"]["current"], stats["reserved_bytes"]["all"]["current"]
            self._marks.note("memory", allocated=allocated, reserved=reserved)

    def peaks(self) -> dict[str, Any]:
        """What the whole process took at its worst, so far. Bytes."""
        found: dict[str, Any] = {
            "rss": psutil.Process().memory_info().rss,
            "rss_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT,
        }
        if self._device.type != "cuda":
            return found
        stats = torch.cuda.memory_stats(self._device)
        pinned = torch.cuda.host_memory_stats()
        found |= {name: stats.get(f"{name}_bytes.all.peak") for name in ("allocated", "active", "reserved", "requested")}
        found |= {f"{name}_end": stats.get(f"{name}_bytes.all.current") for name in ("allocated", "reserved")}
        found |= {"retries": stats.get("num_alloc_retries"), "ooms": stats.get("num_ooms"), "pinned": pinned.get("allocated_bytes.peak")}
        return found

    def __enter__(self) -> Self:
        if self._device.type == "cuda":
            self._thread = threading.Thread(target=self._sample, name="membound-memory", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(self._period):
            self.note()
