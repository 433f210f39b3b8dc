"""Where a measurement lies while it runs: DIR/raw, whose files are made for being killed at any moment. DIR becomes the Run when it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from membound import folders
from membound.errors import RecordError


@dataclass(frozen=True)
class Place:
    """The files of one measurement under way, or of one that was killed."""

    folder: Path
    """What will be the Run's folder."""

    @property
    def raw(self) -> Path:
        """All that is written while the measurement runs."""
        return self.folder / "raw"

    @property
    def samples(self) -> Path:
        """The sampler's own folder."""
        return self.raw / "samples"

    @property
    def marks(self) -> Path:
        """One file of marks per rank."""
        return self.raw / "marks"

    @property
    def plan(self) -> Path:
        """What was asked: written before anything runs."""
        return self.raw / "plan.json"

    @property
    def ended(self) -> Path:
        """How it ended: missing while it runs and after a kill."""
        return self.raw / "ended.json"

    @property
    def log(self) -> Path:
        """What the training processes print."""
        return self.raw / "job.log"

    @property
    def processes(self) -> Path:
        """The tree of processes over time, one line a sample."""
        return self.raw / "processes.jsonl"

    def failure(self, rank: int) -> Path:
        """Why one rank failed."""
        return self.raw / f"failure-{rank}.json"

    def failures(self) -> list[dict[str, Any]]:
        """All failures that ranks have written down, the first in time first."""
        return sorted((read_json(path) for path in self.raw.glob("failure-*.json")), key=lambda failure: int(failure["t"]))

    def make(self) -> None:
        """Make the folders. Raises `StorageError`."""
        try:
            for folder in (self.samples, self.marks):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise folders.disk_error(self.folder, error) from None

    def unfinished(self) -> bool:
        """Whether a measurement began here that was never put together."""
        return self.plan.is_file()

    def tail(self, lines: int = 20) -> list[str]:
        """The last lines that the training processes printed."""
        try:
            return self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        except OSError:
            return []


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` as `path`, whole or not at all. Raises `StorageError`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise folders.disk_error(path, error) from None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises `RecordError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}: cannot be read ({error})") from None
    if not isinstance(document, dict):
        raise RecordError(f"{path}: holds no object")
    return document
