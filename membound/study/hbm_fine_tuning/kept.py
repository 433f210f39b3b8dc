"""The study's Runs on disk, one folder each: what is there, and was made by the same code of the same Job and Machine, is not made again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Final

from membound import sources
from membound.errors import RecordError
from membound.run import store
from membound.run.schema import Run
from membound.spec import catalogue
from membound.study.claims import published
from membound.study.hbm_fine_tuning.plan import Point
from membound.trace import cache

_MARK: Final = "fingerprint"
# What turns a Trace into a Run: a change of these makes every kept Run stale. The trace's own key holds what turns a Job into a Trace.
_SOURCES: Final = ("cost", "replay", "run", "spec", "study/predicting.py")
# Large, and drawn nowhere on the page: what the trace cache can give again within a second.
_LEFT_OUT: Final = frozenset({"memory.timeline", "memory.holdings"})


@dataclasses.dataclass(frozen=True)
class Kept:
    """The folder `runs` of a study."""

    folder: Path

    def read(self, point: Point) -> Run | None:
        """The Run of `point`, or None: not there, damaged, or of other code."""
        try:
            run = store.read(self.folder / point.name)
        except RecordError:
            return None
        return run if run.about.get(_MARK) == fingerprint(point) else None

    def write(self, point: Point, run: Run) -> Run:
        """Keep `run`, whole or not at all; as it is kept. Raises `StorageError`."""
        tables = {name: table for name, table in run.tables.items() if name not in _LEFT_OUT}
        kept = dataclasses.replace(run, tables=tables, about={**run.about, _MARK: fingerprint(point), "title": point.title})
        store.write(kept, self.folder / point.name)
        return kept


def write_published(folder: Path) -> None:
    """The report's own Runs beside ours, one folder each, for `membound compare`. Raises `StorageError`."""
    for name, run in published.runs().items():
        store.write(run, folder / "published" / name)


def fingerprint(point: Point) -> str:
    """SHA-256 over all that shapes the Run of `point`."""
    trace = cache.key(point.job, catalogue.model_entry(point.job.model, point.job.allow_code).config, point.machine.gpus)
    parts = [trace, point.job.model_dump(mode="json"), point.machine.model_dump(mode="json"), sources.digest(*_SOURCES)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
