"""Traces kept by content: the same Job under the same code is captured once. A convenience: no trouble with it ever stops a prediction."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from membound import packages, sources
from membound.errors import InputError
from membound.spec.job import Job, deepspeed_json
from membound.trace import store
from membound.trace.kept import Kept
from membound.trace.schema import Trace

CAP: Final = 2e9
"""Bytes that all entries together may take."""
MICRO_STEPS: Final = 3
"""Micro-steps that a capture runs at most: first, middle and last, all that differ. Accumulation beyond repeats the middle one."""

# What turns a Job into a Trace: a change of these makes every kept Trace stale.
_SOURCES = ("ghost", "programs", "trace", "spec/job.py", "spec/data/lengths")


def default_folder() -> Path:
    """$MEMBOUND_CACHE, else the user's cache folder as the platform has it. Raises `InputError` where there is neither."""
    if own := os.environ.get("MEMBOUND_CACHE"):
        return Path(own)
    usual = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(usual).expanduser() / "membound"
    except RuntimeError:
        raise InputError("MEMBOUND_CACHE", None, "this user has no home folder: set MEMBOUND_CACHE to a folder for traces") from None


@functools.lru_cache(maxsize=256)
def warn(message: str) -> None:
    """One line on standard error; the same words once."""
    print(f"membound: warning: {message}", file=sys.stderr)


def key(job: Job, config: Mapping[str, Any], ranks_per_node: int) -> str:
    """SHA-256 over all that shapes the Trace: contents rather than paths, no machine, no accumulation beyond what a capture runs."""
    shape = job.model_dump(mode="json", exclude={"machine", "model", "allow_code"})
    shape["data"] = {**shape["data"], "path": job.data.path is not None, "tokenizer": None}
    shape["recipe"]["accumulation"] = min(job.recipe.accumulation, MICRO_STEPS)
    if job.recipe.deepspeed_config is not None:
        shape["recipe"]["deepspeed_config"] = deepspeed_json(job.recipe.deepspeed_config)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    parts = [shape, dict(config), min(ranks_per_node, job.gpus), {"python": python} | packages.installed(), sources.digest(*_SOURCES)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class TraceCache:
    """A folder of Traces by key. Each entry appears whole or not at all; several processes may use it at once."""

    folder: Path
    cap: float = CAP
    warn: Callable[[str], None] = warn

    def get(self, key: str, job: Job) -> Trace | None:
        """The Trace of `key` as that of `job`, or None: not there, or damaged, and then removed."""
        trace = self._kept.read(key, store.read)
        return None if trace is None else _as_of(trace, job)

    def put(self, key: str, trace: Trace) -> None:
        """Keep `trace`; forget the longest unused ones beyond `cap`. Warns instead of failing."""
        self._kept.write(key, lambda folder: store.write(trace, folder))

    def usage(self) -> tuple[int, int]:
        """Entries and bytes that the cache holds."""
        return self._kept.usage()

    @property
    def _kept(self) -> Kept:
        return Kept(self.folder / "traces", "trace", "the trace", self.cap, self.warn)


def _as_of(trace: Trace, job: Job) -> Trace:
    repeat = max(job.recipe.accumulation - trace.header.micro_steps, 0) + 1
    return dataclasses.replace(trace, header=dataclasses.replace(trace.header, job=job.model_dump(mode="json"), repeat=repeat))
