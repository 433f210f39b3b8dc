"""Records a machine: asks every question again and again, and keeps the answers where they changed. Changes no setting."""

from __future__ import annotations

import errno
import functools
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from membound.measure.recorded import tracks
from membound.measure.sensors import gpm
from membound.measure.sensors.dimms import TABLE
from membound.measure.sensors.doors import Doors
from membound.measure.sensors.files import Files
from membound.measure.sensors.nvml import LIVE_CALLS, NO_DATA, STATIC_CALLS, Nvml, Refused

# Fields that sensors ask for, those that tell how memory clocks are switched, and power in all scopes, average too.
FIELDS: Final = ((186, 0), (186, 1), (186, 2), (185, 0), (185, 1), (185, 2), (83, 0), (82, 0), (298, 0), (299, 0))
# Counters go on where a recording is repeated.
_COUNTERS: Final = {(83, 0)}
# How often the quick calls are asked, s: four times in a tick of the usual grid.
_EVERY: Final = 0.005
# Calls that take as long as a tick, and are asked in a thread of their own.
_SLOW: Final = ("pcie.sent", "pcie.received")
# The kernel's files: how often they are looked at, s, and which.
_FILES_EVERY: Final = 0.1
_LIVE_FILES: Final = ("/proc/stat", "/proc/meminfo", "/proc/diskstats")
_PATTERNS: Final = ("/sys/block/*/size", "/sys/class/powercap/intel-rapl:*/name", "/sys/class/powercap/intel-rapl:*/max_energy_range_uj")


@dataclass
class _Question:
    """One track in the making."""

    call: str
    gpu: int
    argument: Any = None
    changes: list[list[Any]] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)

    def note(self, time: float, code: int, value: Any, cost: float) -> None:
        """Keep an answer if it is a new one."""
        self.costs.append(cost)
        if not self.changes or self.changes[-1][1:] != [code, value]:
            self.changes.append([round(time, 6), code, value])

    def entry(self) -> dict[str, Any]:
        """As the file has it. The first answer stands from the beginning."""
        changes = [[0.0, *self.changes[0][1:]], *self.changes[1:]]
        cost = sorted(self.costs)[len(self.costs) // 2] * 1e6
        counter = self.call == "field" and tuple(self.argument) in _COUNTERS and changes[0][1] == 0
        return tracks.entry(self.call, self.gpu, changes, self.argument, round(cost, 2), counter)


def record(doors: Doors, name: str, about: str, seconds: float, folder: Path) -> Path:
    """Record the machine behind `doors` for `seconds`, into a file in `folder`. Raises `Refused` without a driver, `OSError`."""
    nvml = doors.nvml()
    gpus = int(nvml.ask("count"))
    begin = time.monotonic()
    questions: list[_Question] = []
    jobs: list[tuple[Callable[..., None], tuple[Any, ...]]] = [(_record_files, (doors.files,))]
    jobs += [(job, (nvml, gpu)) for gpu in range(gpus) for job in (_record_gpu, _record_slow, _record_gpm)]
    threads = [threading.Thread(target=job, args=(*about_what, begin, seconds, questions.append)) for job, about_what in jobs]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    system = [_once(nvml, call, -1) for call in ("driver", "nvml")]
    entries = [question.entry() for question in [*system, *questions] if question.changes]
    path = folder / f"{name}{tracks.SUFFIX}"
    tracks.save(tracks.document(name, about, False, gpus, seconds, entries), path)
    return path


def _ask(question: _Question, begin: float, ask: Callable[[], Any]) -> None:
    before = time.monotonic()
    try:
        code, value = 0, ask()
    except Refused as refused:
        code, value = refused.code, None
    question.note(before - begin, code, list(value) if isinstance(value, tuple) else value, time.monotonic() - before)


def _once(nvml: Nvml, call: str, gpu: int) -> _Question:
    question = _Question(call, gpu)
    _ask(question, time.monotonic(), lambda: nvml.ask(call, gpu))
    return question


def _record_gpu(nvml: Nvml, gpu: int, begin: float, seconds: float, keep: Callable[[_Question], None]) -> None:
    for call in STATIC_CALLS:
        keep(_once(nvml, call, gpu))
    live = [_Question(call, gpu) for call in LIVE_CALLS if call not in _SLOW]
    fields = [_Question("field", gpu, list(each)) for each in FIELDS]
    for _ in _ticks(begin, seconds, _EVERY):
        for question in live:
            _ask(question, begin, functools.partial(nvml.ask, question.call, gpu))
        _ask_fields(nvml, gpu, fields, begin)
    for question in (*live, *fields):
        keep(question)


def _ask_fields(nvml: Nvml, gpu: int, questions: list[_Question], begin: float) -> None:
    before = time.monotonic()
    try:
        answers = nvml.fields(gpu, FIELDS)
    except Refused as refused:
        answers = [(refused.code, 0, 0)] * len(FIELDS)
    cost = (time.monotonic() - before) / len(FIELDS)
    for question, (code, value, _) in zip(questions, answers, strict=True):
        question.note(before - begin, code, value if code == 0 else None, cost)


def _record_slow(nvml: Nvml, gpu: int, begin: float, seconds: float, keep: Callable[[_Question], None]) -> None:
    questions = [_Question(call, gpu) for call in _SLOW]
    for _ in _ticks(begin, seconds, 0.1):
        for question in questions:
            _ask(question, begin, functools.partial(nvml.ask, question.call, gpu))
    for question in questions:
        keep(question)


def _record_gpm(nvml: Nvml, gpu: int, begin: float, seconds: float, keep: Callable[[_Question], None]) -> None:
    metrics = [metric for metric, _ in gpm.METRICS.values()]
    questions = [_Question("gpm", gpu, metric) for metric in metrics]
    try:
        last, spare, since = nvml.gpm_take(gpu), None, time.monotonic()
        for _ in _ticks(time.monotonic(), seconds - (time.monotonic() - begin), gpm.PERIOD * 1.1):
            if time.monotonic() - since < gpm.PERIOD:
                continue
            before = time.monotonic()
            now = nvml.gpm_take(gpu, spare)
            answers = nvml.gpm_between(last, now, metrics)
            for question, (code, value) in zip(questions, answers, strict=True):
                # What a window holds is noted at its beginning. Not a number is no answer.
                whole = code == 0 and math.isfinite(value)
                question.note(since - begin, 0 if whole else code or NO_DATA, value if whole else None, time.monotonic() - before)
            last, spare, since = now, last, before
    except Refused:
        # Without GPM there are no tracks of it: the call gpm_supported says so.
        return
    for question in questions:
        keep(question)


def _record_files(files: Files, begin: float, seconds: float, keep: Callable[[_Question], None]) -> None:
    patterns = [path for pattern in _PATTERNS for path in files.find(pattern)]
    energies = [path.replace("/name", "/energy_uj") for path in patterns if path.endswith("/name")]
    for path in ("/proc/cpuinfo", TABLE, *patterns):
        keep(_read(files, path, begin, _Question("file", -1, path)))
    live = [_Question("file", -1, path) for path in (*_LIVE_FILES, *energies)]
    for _ in _ticks(begin, seconds, _FILES_EVERY):
        for question in live:
            _read(files, question.argument, begin, question)
    for question in live:
        keep(question)


def _read(files: Files, path: str, begin: float, question: _Question) -> _Question:
    before = time.monotonic()
    try:
        code, text = 0, files.data(path).decode("latin-1") if path == TABLE else files.text(path)
    except OSError as error:
        code, text = error.errno or errno.EIO, ""
    question.note(before - begin, code, text, time.monotonic() - before)
    return question


def _ticks(begin: float, seconds: float, every: float) -> Iterator[int]:
    """Ticks of an absolute grid until `seconds` after `begin`."""
    tick = 0
    while begin + tick * every < begin + seconds:
        time.sleep(max(0.0, begin + tick * every - time.monotonic()))
        yield tick
        tick = max(tick + 1, math.ceil((time.monotonic() - begin) / every))


def report(path: Path, document: dict[str, Any]) -> None:
    """Write what the probes found beside the recording. Raises `OSError`."""
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
