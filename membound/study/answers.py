"""Answers kept by content: the same question to the same code, with the same efficiencies, is answered once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from membound import __version__, sources
from membound.cost import profile
from membound.replay.allocator_settings import AllocatorSettings
from membound.run import store
from membound.run.schema import Run
from membound.spec import catalogue
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.trace import cache
from membound.trace.kept import Kept

CAP: Final = 200e6
"""Bytes that all answers together may take."""
# What turns a Trace into an answer. The Trace's own key holds what turns a Job into a Trace.
_SOURCES: Final = ("cost", "replay", "run", "spec", "study/predicting.py", "study/plan.py", "study/answers.py")
# What an answer shows. A Run for a folder, which has all tables, is made anew.
_SHOWN: Final = frozenset({"memory.holdings"})


@dataclass(frozen=True)
class Answers:
    """The answers below a cache folder. Several processes may use it at once; trouble with it never stops a prediction."""

    folder: Path

    def get(self, key: str) -> Run | None:
        """The Run of `key` with the tables that are shown, or None: not there, or damaged, and then removed."""
        return self._kept.read(key, store.read)

    def put(self, key: str, run: Run) -> None:
        """Keep what is shown of `run`; forget the longest unused beyond `CAP`. Never fails."""
        tables = {name: table for name, table in run.tables.items() if name in _SHOWN}
        # What a capture took of this computer is said once, when it ran.
        about = {name: value for name, value in run.about.items() if name != "capture"}
        shown = dataclasses.replace(run, tables=tables, about=about)
        self._kept.write(key, lambda folder: store.write(shown, folder))

    @property
    def _kept(self) -> Kept:
        # What keeps an answer from being kept keeps the trace from it too, and is said there.
        return Kept(self.folder / "answers", "run", "the answer", CAP, lambda _: None)


def key(job: Job, machine: Machine, settings: AllocatorSettings, *, advised: bool) -> str | None:
    """SHA-256 over all that shapes the answer; None where files of the user's would have to be read to know (`data.path`, `data.tokenizer`)."""
    if job.data.path is not None or job.data.tokenizer is not None:
        return None
    trace = cache.key(job, catalogue.model_entry(job.model, job.allow_code).config, machine.gpus)
    documents = job.model_dump(mode="json"), machine.model_dump(mode="json"), dataclasses.asdict(settings)
    parts: list[Any] = [__version__, trace, *documents, advised, _own_profiles(), sources.digest(*_SOURCES)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _own_profiles() -> dict[str, str]:
    """The user's own efficiencies, by file name."""
    try:
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in profile.folder().glob("*.yaml")}
    except OSError:
        return {}
