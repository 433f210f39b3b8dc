"""When the GPU began and ended each span of a step, on the host's monotonic clock: events, read once the GPU has been waited for."""

from __future__ import annotations

import time

import torch


class GpuClock:
    """CUDA events around spans. `start` while the GPU is idle; then `begin` and `end`; `spans` once it is idle again."""

    def __init__(self) -> None:
        # Events that were made before, to be recorded again: making one takes longer than recording it.
        self._made: list[torch.cuda.Event] = []
        self._used = 0
        self._zero = self._event()
        self._zero_ns = 0
        self._spans: dict[int, tuple[torch.cuda.Event, torch.cuda.Event | None]] = {}

    def start(self) -> None:
        """The GPU is idle: an event recorded now happens now, which ties its clock to the host's."""
        self._spans, self._used = {}, 0
        self._zero = self._event()
        self._zero_ns = time.monotonic_ns()
        self._zero.record()

    def begin(self, number: int) -> None:
        """The work launched from here on belongs to span `number`."""
        event = self._event()
        event.record()
        self._spans[number] = event, None

    def end(self, number: int) -> None:
        """No more work of span `number` is launched on this stream."""
        event = self._event()
        event.record()
        self._spans[number] = self._spans[number][0], event

    def spans(self) -> list[tuple[int, int, int]]:
        """Id, start and end in ns of `time.monotonic_ns` for every span that has ended."""
        return [(number, self._at(begun), self._at(ended)) for number, (begun, ended) in self._spans.items() if ended is not None]

    def _at(self, event: torch.cuda.Event) -> int:
        return self._zero_ns + round(float(self._zero.elapsed_time(event)) * 1e6)

    def _event(self) -> torch.cuda.Event:
        if self._used == len(self._made):
            self._made.append(torch.cuda.Event(enable_timing=True))
        self._used += 1
        return self._made[self._used - 1]
