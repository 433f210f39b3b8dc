"""Doors to a recorded machine: the sensors ask it as they would ask a real one."""

from __future__ import annotations

import errno
import fnmatch
import json
import os
import time
from collections.abc import Sequence
from typing import Any, Final, final

from membound.measure.recorded.faults import FaultyNvml
from membound.measure.recorded.tracks import Track, Tracks, key, load
from membound.measure.sensors.doors import Counter, Doors, PmSample, PmSession
from membound.measure.sensors.files import Files
from membound.measure.sensors.nvml import NOT_SUPPORTED, FieldAnswer, MetricAnswer, Nvml, Refused
from membound.measure.source import Source

# A call that took longer than this, s, takes as long again when it is replayed; finer than that, sleeping itself costs more.
_WORTH_SLEEPING: Final = 1e-3
# GPM's snapshots must lie further apart than this, s (NVML reference, GPM functions; NVIDIA/DCGM#310).
_GPM_LEAST: Final = 0.1
# What a share is, and what a rate, of GPM's metrics: rates come back as 0 where a window is too short, shares as no number.
_GPM_RATES: Final = range(20, 160)
# Copies of one recorded GPU do not march in step, s.
_APART: Final = 0.137


def open_recorded(source: Source) -> Doors:
    """The recorded machine that `source` names. Raises `UnknownNameError`, `RecordError`."""
    return RecordedDoors(load(source.machine), source)


@final
class RecordedDoors(Doors):
    """Answers from tracks, through the faults that were asked for."""

    def __init__(self, tracks: Tracks, source: Source) -> None:
        self._tracks = tracks
        self._source = source
        self._opened = time.monotonic()
        self._files = RecordedFiles(tracks, self._opened)

    @property
    def files(self) -> Files:
        return self._files

    def nvml(self) -> Nvml:
        inner = RecordedNvml(self._tracks, self._source.gpus or self._tracks.gpus, self._opened)
        return FaultyNvml(inner, self._source.faults, self._opened) if self._source.faults else inner

    def pm(self, gpu: int, every: float) -> PmSession:
        track = self._tracks.tracks.get(key("pm", gpu % self._tracks.gpus))
        if track is None:
            raise RuntimeError("this machine was recorded without performance-monitor sampling")
        return RecordedPm(track, self._opened, every)

    def counter(self, kind: int, config: int, cpu: int) -> Counter:
        raise OSError(errno.ENOSYS, "this machine was recorded without perf events")


@final
class RecordedNvml(Nvml):
    """A driver that answers from tracks. GPUs beyond those recorded are copies, each a little later in time."""

    def __init__(self, tracks: Tracks, gpus: int, opened: float) -> None:
        self._recorded = tracks.gpus
        self._gpus = gpus
        self._opened = opened
        self._calls: dict[tuple[str, int], Track] = {}
        self._fields: dict[tuple[int, int, int], Track] = {}
        self._metrics: dict[tuple[int, int], Track] = {}
        for (call, gpu, argument), track in tracks.tracks.items():
            self._index(call, gpu, json.loads(argument), track)

    def _index(self, call: str, gpu: int, argument: Any, track: Track) -> None:
        if call == "field":
            self._fields[gpu, argument[0], argument[1]] = track
        elif call == "gpm":
            self._metrics[gpu, argument] = track
        elif argument is None:
            self._calls[call, gpu] = track

    def ask(self, call: str, gpu: int = -1) -> Any:
        if call == "count":
            return self._gpus
        value = self._answer(self._track(call, gpu), gpu)
        return f"{value}-{gpu}" if call == "uuid" and gpu >= self._recorded else value

    def fields(self, gpu: int, wanted: Sequence[tuple[int, int]]) -> list[FieldAnswer]:
        now = self._now(gpu)
        found = [self._fields.get((gpu % self._recorded, *each)) for each in wanted]
        answers = [(NOT_SUPPORTED, 0) if track is None else track.at(now) for track in found]
        return [(code, 0 if value is None else value, int(now * 1e6)) for code, value in answers]

    def gpm_take(self, gpu: int, into: Any = None) -> Any:
        self._answer(self._track("gpm_supported", gpu), gpu)
        return gpu, self._now(gpu)

    def gpm_between(self, first: Any, second: Any, metrics: Sequence[int]) -> list[MetricAnswer]:
        (gpu, begin), (_, end) = first, second
        return [self._metric(gpu, begin, end, metric) for metric in metrics]

    def _metric(self, gpu: int, begin: float, end: float, metric: int) -> MetricAnswer:
        track = self._metrics.get((gpu % self._recorded, metric))
        if track is None:
            return NOT_SUPPORTED, 0.0
        if end - begin < _GPM_LEAST:
            return 0, 0.0 if metric in _GPM_RATES else float("nan")
        return track.mean(begin, end)

    def close(self) -> None:
        pass

    def _track(self, call: str, gpu: int) -> Track:
        track = self._calls.get((call, gpu % self._recorded if gpu >= 0 else -1))
        if track is None:
            raise Refused(NOT_SUPPORTED)
        return track

    def _answer(self, track: Track, gpu: int) -> Any:
        if track.cost > _WORTH_SLEEPING:
            time.sleep(track.cost)
        code, value = track.at(self._now(gpu))
        if code:
            raise Refused(code)
        return value

    def _now(self, gpu: int) -> float:
        return time.monotonic() - self._opened + _APART * (gpu // self._recorded if gpu >= 0 else 0)


@final
class RecordedPm(PmSession):
    """Intervals of `every` s with the mean rates of the track [bytes read, bytes written per second]."""

    def __init__(self, track: Track, opened: float, every: float) -> None:
        self._track = track
        self._opened = opened
        self._every = every
        self._done = time.monotonic()

    def samples(self) -> list[PmSample]:
        now = time.monotonic()
        found = []
        while self._done + self._every <= now:
            begin, self._done = self._done, self._done + self._every
            _, (read, written) = self._track.at((begin + self._done) / 2 - self._opened)
            found.append((int(begin * 1e9), int(self._done * 1e9), read * self._every, written * self._every))
        return found

    def close(self) -> None:
        pass


@final
class RecordedFiles(Files):
    """The kernel's files as texts over time."""

    def __init__(self, tracks: Tracks, opened: float) -> None:
        self._texts = {json.loads(argument): track for (call, _, argument), track in tracks.tracks.items() if call == "file"}
        self._opened = opened

    def text(self, path: str) -> str:
        track = self._texts.get(path)
        code, value = (errno.ENOENT, "") if track is None else track.at(time.monotonic() - self._opened)
        if code:
            raise OSError(code, os.strerror(code), path)
        return str(value)

    def data(self, path: str) -> bytes:
        return self.text(path).encode("latin-1")

    def find(self, pattern: str) -> Sequence[str]:
        return sorted(path for path in self._texts if fnmatch.fnmatch(path, pattern) and path.count("/") == pattern.count("/"))
