"""The file of a recorded machine: one track per question, with the moments at which its answer changed.

gzip-compressed JSON. `{"schema": 1, "name", "about", "synthetic", "seconds", "gpus", "tracks": [track, ...]}`, where a track is
`{"call", "gpu", "argument", "cost_us", "counter", "changes": [[s, code, value], ...]}`: `code` 0 for an answer, else what refused (an NVML return
code, or an errno for the kernel's files). `gpu` is -1 for what is asked of the whole machine. docs/sensors.md has the list of calls.
"""

from __future__ import annotations

import bisect
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from membound.errors import RecordError, UnknownNameError

SCHEMA: Final = 1
SUFFIX: Final = ".machine.json.gz"
_CATALOGUE: Final = Path(__file__).parent.parent / "data"

Key = tuple[str, int, str]
"""Call, GPU, argument as JSON."""


class Track:
    """The answers to one question over time. Times are s since the recording's start; it is repeated without end."""

    def __init__(self, entry: Mapping[str, Any], seconds: float) -> None:
        self.cost = float(entry["cost_us"]) * 1e-6
        self._seconds = seconds
        self._counter = bool(entry["counter"])
        changes = entry["changes"]
        self._times = [float(change[0]) for change in changes]
        self._answers = [(int(change[1]), change[2]) for change in changes]
        if not changes or self._times != sorted(self._times):
            raise ValueError(f"track {entry['call']}: no answers, or not in the order of time")

    def at(self, time: float) -> tuple[int, Any]:
        """Code and value at `time` s."""
        rounds, phase = divmod(time, self._seconds)
        code, value = self._answers[max(0, bisect.bisect_right(self._times, phase) - 1)]
        # A counter goes on where the recording is repeated.
        return code, value + rounds * (self._answers[-1][1] - self._answers[0][1]) if self._counter and code == 0 else value

    def mean(self, begin: float, end: float) -> tuple[int, float]:
        """Mean of what was answered between two times, in time; and the code at the second. What was refused counts as unread, not as 0."""
        code, last = self.at(end)
        if code or end <= begin:
            return code, last
        total, read, at = 0.0, 0.0, begin
        while at < end:
            following = min(end, self._next(at))
            found, value = self.at((at + following) / 2)
            if found == 0:
                total, read = total + value * (following - at), read + following - at
            at = following
        return 0, total / read if read else last

    def _next(self, time: float) -> float:
        rounds, phase = divmod(time, self._seconds)
        place = bisect.bisect_right(self._times, phase + 1e-9)
        return rounds * self._seconds + (self._times[place] if place < len(self._times) else self._seconds)


@dataclass(frozen=True)
class Tracks:
    """A recorded machine."""

    name: str
    about: str
    synthetic: bool
    gpus: int
    seconds: float
    tracks: Mapping[Key, Track]


def key(call: str, gpu: int, argument: Any = None) -> Key:
    """How a question is looked up."""
    return call, gpu, json.dumps(argument)


def entry(call: str, gpu: int, changes: Sequence[Sequence[Any]], argument: Any = None, cost_us: float = 0.0, counter: bool = False) -> dict[str, Any]:
    """A track as the file has it."""
    return {"call": call, "gpu": gpu, "argument": argument, "cost_us": cost_us, "counter": counter, "changes": [list(change) for change in changes]}


def document(name: str, about: str, synthetic: bool, gpus: int, seconds: float, entries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """A recorded machine as the file has it."""
    return {"schema": SCHEMA, "name": name, "about": about, "synthetic": synthetic, "gpus": gpus, "seconds": seconds, "tracks": list(entries)}


def save(machine: Mapping[str, Any], path: Path) -> None:
    """Write a `document`. Raises `OSError`."""
    # No time stamp inside: the same machine makes the same file.
    path.write_bytes(gzip.compress(json.dumps(machine, separators=(",", ":")).encode(), mtime=0))


def names() -> list[str]:
    """Recorded machines that ship with membound."""
    return sorted(path.name.removesuffix(SUFFIX) for path in _CATALOGUE.glob(f"*{SUFFIX}"))


def load(machine: str) -> Tracks:
    """By name, or by the path of a file or of a folder that holds one. Raises `UnknownNameError`, `RecordError`."""
    path = _find(machine)
    try:
        found: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
        if found["schema"] != SCHEMA:
            raise RecordError(f"{path}: recorded machine of schema {found['schema']}, this membound reads {SCHEMA}")
        seconds = float(found["seconds"])
        tracks = {key(each["call"], each["gpu"], each["argument"]): Track(each, seconds) for each in found["tracks"]}
        return Tracks(found["name"], found["about"], bool(found["synthetic"]), int(found["gpus"]), seconds, tracks)
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError) as error:
        raise RecordError(f"{path}: no recorded machine ({error})") from None


def _find(machine: str) -> Path:
    if machine in names():
        return _CATALOGUE / f"{machine}{SUFFIX}"
    path = Path(machine)
    if path.is_dir():
        inside = sorted(path.glob(f"*{SUFFIX}"))
        if len(inside) == 1:
            return inside[0]
        raise RecordError(f"{path}: holds {len(inside)} recorded machines (*{SUFFIX}), where one is wanted")
    if path.is_file():
        return path
    raise UnknownNameError("machine", machine, [*names(), "real"])
