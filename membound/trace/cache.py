"""Traces kept by content: the same Job under the same code is captured once. A convenience: no trouble with it ever stops a prediction."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from membound import folders
from membound.errors import InputError, RecordError, StorageError
from membound.spec.job import Job, deepspeed_json
from membound.trace import store
from membound.trace.schema import Trace

CAP: Final = 2e9
"""Bytes that all entries together may take."""
MICRO_STEPS: Final = 3
"""Micro-steps that a capture runs at most; accumulation beyond repeats the middle one (`membound.ghost.run`)."""

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "deepspeed", "accelerate")
# What turns a Job into a Trace: a change of these makes every kept Trace stale.
_SOURCES = ("ghost", "programs", "trace", "spec/job.py", "spec/data/lengths")
_TRACE, _SUMS = "trace", "sums.json"
# An unfinished entry of this age belongs to nobody any more, s.
_ABANDONED = 3600.0


def default_folder() -> Path:
    """$MEMBOUND_CACHE, else the user's cache folder as the platform has it. Raises `InputError` where there is neither."""
    if own := os.environ.get("MEMBOUND_CACHE"):
        return Path(own)
    usual = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(usual).expanduser() / "membound"
    except RuntimeError:
        raise InputError("MEMBOUND_CACHE", None, "this user has no home folder: set MEMBOUND_CACHE to a folder for traces") from None


def warn(message: str) -> None:
    """One line on standard error."""
    print(f"membound: warning: {message}", file=sys.stderr)


def key(job: Job, config: Mapping[str, Any], ranks_per_node: int) -> str:
    """SHA-256 over all that shapes the Trace: contents rather than paths, no machine, no accumulation beyond what a capture runs."""
    shape = job.model_dump(mode="json", exclude={"machine", "model", "allow_code"})
    shape["data"] = {**shape["data"], "path": job.data.path is not None, "tokenizer": None}
    shape["recipe"]["accumulation"] = min(job.recipe.accumulation, MICRO_STEPS)
    if job.recipe.deepspeed_config is not None:
        shape["recipe"]["deepspeed_config"] = deepspeed_json(job.recipe.deepspeed_config)
    parts = [shape, dict(config), min(ranks_per_node, job.gpus), _versions(), _source_sum()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def _source_sum() -> str:
    root = Path(__file__).resolve().parent.parent
    files = sorted(file for source in _SOURCES for file in _files(root / source))
    total = hashlib.sha256()
    for file in files:
        total.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in {".py", ".json"}]


@dataclass(frozen=True)
class TraceCache:
    """A folder of Traces by key. Each entry appears whole or not at all; several processes may use it at once."""

    folder: Path
    cap: float = CAP
    warn: Callable[[str], None] = warn

    def get(self, key: str, job: Job) -> Trace | None:
        """The Trace of `key` as that of `job`, or None: not there, or damaged, and then removed."""
        entry = self._entry(key)
        try:
            if not entry.is_dir():
                return None
            if json.loads((entry / _SUMS).read_text()) != _sums(entry / _TRACE):
                raise RecordError(f"{entry}: differs from what was written")
            trace = store.read(entry / _TRACE)
        except (OSError, ValueError, RecordError):
            _remove(entry)
            return None
        with suppress(OSError):
            os.utime(entry)
        return _as_of(trace, job)

    def put(self, key: str, trace: Trace) -> None:
        """Keep `trace`; forget the longest unused ones beyond `cap`. Warns instead of failing."""
        entry = self._entry(key)
        try:
            # Where another process has put the same Trace first, that one stays: it is as good.
            with folders.whole(entry) as draft:
                store.write(trace, draft / _TRACE)
                (draft / _SUMS).write_text(json.dumps(_sums(draft / _TRACE)))
        except StorageError as error:
            self.warn(f"the trace is not kept: {error}")
        self._evict(keep=entry)

    def usage(self) -> tuple[int, int]:
        """Entries and bytes that the cache holds."""
        sizes = [_size(entry) for entry in self._entries()]
        return len(sizes), sum(sizes)

    def _entry(self, key: str) -> Path:
        return self.folder / "traces" / key

    def _entries(self) -> list[Path]:
        try:
            return [path for path in (self.folder / "traces").iterdir() if path.is_dir()]
        except OSError:
            return []

    def _evict(self, keep: Path) -> None:
        """Remove abandoned drafts, then the longest unused entries until the rest is within `cap`. `keep` stays in any case."""
        used: list[tuple[float, int, Path]] = []
        for entry in self._entries():
            try:
                age = entry.stat().st_mtime
            except OSError:
                continue
            if entry.name.startswith("."):
                if time.time() - age > _ABANDONED:
                    _remove(entry)
            else:
                used.append((age, _size(entry), entry))
        total = sum(size for _, size, _ in used)
        for _, size, entry in sorted(used):
            if total <= self.cap:
                return
            if entry != keep:
                _remove(entry)
                total -= size


def _as_of(trace: Trace, job: Job) -> Trace:
    repeat = max(job.recipe.accumulation - trace.header.micro_steps, 0) + 1
    return dataclasses.replace(trace, header=dataclasses.replace(trace.header, job=job.model_dump(mode="json"), repeat=repeat))


def _sums(folder: Path) -> dict[str, str]:
    # Parquet has no checksum of its own here: a flipped bit could pass as a number.
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def _size(entry: Path) -> int:
    total = 0
    for file in entry.rglob("*"):
        try:
            total += file.stat().st_size
        except OSError:
            continue
    return total


def _remove(entry: Path) -> None:
    # Renamed first, so that nobody finds half of it.
    try:
        doomed = entry.with_name(f".doomed-{os.getpid()}-{entry.name[-40:]}")
        os.replace(entry, doomed)
    except OSError:
        doomed = entry
    shutil.rmtree(doomed, ignore_errors=True)
