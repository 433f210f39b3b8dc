"""Marks: what a process says of its own doings, as lines of JSON that outlive its death. All times are `time.monotonic_ns`, the sampler's clock.

One file per rank. A line is written whole and at once, so a process that is killed loses at most the line it was writing:

    {"t": 1, "what": "begin", "id": 7, "kind": "phase", "name": "forward", "step": 3, "micro": 0}
    {"t": 2, "what": "end", "id": 7}
    {"t": 3, "what": "gpu", "spans": [[7, 1, 2], ...]}      when the GPU itself began and ended spans: id, start, end
    {"t": 4, "what": "memory", "allocated": 512, "reserved": 2097152}
    {"t": 5, "what": "step", "step": 3, "loss": 5.1, ...}   and other facts, each under its own name

The reader takes whatever lies there.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import pyarrow as pa

from membound.errors import StorageError
from membound.folders import disk_error
from membound.run.series import MARK_TABLE

Kind = Literal["step", "micro-step", "phase", "mark"]
Line = dict[str, Any]

ENVIRONMENT: Final = "MEMBOUND_MARKS"
"""Names the folder into which a watched command's own marks go."""


class Marks:
    """Writes one process's marks. Several threads may write."""

    def __init__(self, path: Path, patience: float = 0.0) -> None:
        """`patience`: longest that a line may wait to be written, s; `flush` says when that is in nobody's way. A step's two dozen lines take half a
        millisecond and more, which it would count as its own.
        """
        try:
            # Line-buffered: what is written is handed to the kernel in whole lines, which keeps it if this process is killed.
            self._file = path.open("a", buffering=1, encoding="utf-8")
        except OSError as error:
            raise disk_error(path, error) from None
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._last = 0
        self._patience = patience
        self._waiting: list[tuple[int, str, dict[str, Any]]] = []
        self._refused: StorageError | None = None
        self._closed = threading.Event()
        if patience:
            threading.Thread(target=self._flush_now_and_then, name="membound-marks", daemon=True).start()

    def begin(self, kind: Kind, name: str, step: int = -1, micro: int = -1) -> int:
        """A span begins now; returns its id. Steps and micro-steps that do not apply are -1."""
        with self._lock:
            self._last += 1
            number = self._last
        self.note("begin", id=number, kind=kind, name=name, step=step, micro=micro)
        return number

    def end(self, number: int) -> None:
        """The span `number` ends now."""
        self.note("end", id=number)

    @contextmanager
    def span(self, kind: Kind, name: str, step: int = -1, micro: int = -1) -> Iterator[int]:
        """A span around a block; it ends also where the block fails."""
        number = self.begin(kind, name, step, micro)
        try:
            yield number
        finally:
            self.end(number)

    def note(self, what: str, **facts: Any) -> None:
        """One line: `what` happened now, with `facts` that JSON can hold. Raises `StorageError` where the disk refuses, or did."""
        with self._lock:
            self._waiting.append((time.monotonic_ns(), what, facts))
        if self._refused is not None:
            raise self._refused
        if not self._patience:
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises `StorageError` where the disk refuses."""
        with self._writing:
            with self._lock:
                waiting, self._waiting = self._waiting, []
            text = "".join(json.dumps({"t": at, "what": what, **facts}, separators=(",", ":")) + "\n" for at, what, facts in waiting)
            try:
                self._file.write(text)
            except OSError as error:
                self._refused = StorageError(f"marks cannot be written: {error.strerror}")
                raise self._refused from None

    def _flush_now_and_then(self) -> None:
        """Write what has waited for long: whoever takes a second for a phase flushes nothing meanwhile."""
        while not self._closed.wait(self._patience / 2):
            with self._lock:
                since = self._waiting[0][0] if self._waiting else None
            if since is not None and time.monotonic_ns() - since > self._patience / 2 * 1e9:
                # The next line to be noted says so, in the thread that can do something about it.
                with suppress(StorageError):
                    self.flush()

    def close(self) -> None:
        """No more marks."""
        self._closed.set()
        try:
            # A disk that has refused lines has been told of.
            if self._refused is None:
                self.flush()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def file_of(folder: Path, rank: int) -> Path:
    """The file of one rank's marks in `folder`."""
    return folder / f"rank-{rank}.jsonl"


def read(folder: Path) -> dict[int, list[Line]]:
    """All marks in `folder` by rank, in the order in which they were written. Torn lines are left out."""
    return {_rank(path): list(parse(path.read_text(encoding="utf-8", errors="replace"))) for path in sorted(folder.glob("rank-*.jsonl"), key=_rank)}


def _rank(path: Path) -> int:
    return int(path.stem.removeprefix("rank-"))


def parse(text: str) -> Iterator[Line]:
    """The lines of `text`; torn ones are left out."""
    for each in text.splitlines():
        try:
            line = json.loads(each)
        # The line that the process was writing when it was killed.
        except ValueError:
            continue
        if isinstance(line, dict) and "what" in line:
            yield line


def facts(lines: Iterable[Line], what: str) -> list[Line]:
    """The lines that say `what`."""
    return [line for line in lines if line["what"] == what]


def table(marks: Mapping[int, Iterable[Line]], epoch_ns: int) -> pa.Table:
    """All spans of all ranks as the table `marks`; times in s since `epoch_ns`, an open span's end null.

    Where the GPU's own times of a span are known, they stand in place of the host's, which only launches.
    """
    rows = [row for rank, lines in marks.items() for row in _spans(rank, list(lines), epoch_ns)]
    return pa.Table.from_pylist(sorted(rows, key=lambda row: (row["start"], row["rank"])), schema=MARK_TABLE)


def _spans(rank: int, lines: list[Line], epoch_ns: int) -> Iterator[dict[str, Any]]:
    ends = {line["id"]: line["t"] for line in facts(lines, "end")}
    on_gpu = {number: (start, end) for line in facts(lines, "gpu") for number, start, end in line["spans"]}
    for line in facts(lines, "begin"):
        start, end = on_gpu.get(line["id"], (line["t"], ends.get(line["id"])))
        yield {
            "start": (start - epoch_ns) / 1e9,
            "end": None if end is None else (end - epoch_ns) / 1e9,
            "rank": rank,
            "kind": line["kind"],
            "name": line["name"],
            "step": line["step"],
            "micro": line["micro"],
        }
