"""The journal of one GPU: its state before any change and how to undo the change, on disk before the change is made."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from membound.errors import RecordError
from membound.measure.clocks import state
from membound.measure.clocks.calls import Call
from membound.measure.clocks.driver import Reading

SCHEMA: Final = 1
_NAME: Final = re.compile(r"clocks-(?P<uuid>.+)\.json")

State = Literal["changing", "restored"]


@dataclass(frozen=True)
class Entry:
    """What is to be known to give one GPU's clocks back. Clocks in Hz."""

    uuid: str
    driver: str
    """Address of the driver."""
    consent: str
    """The option that the person gave."""
    boot: str
    """Which start of the system the change was made in."""
    time: float
    """When, by the wall clock, s since 1970."""
    idle: Reading
    """Clocks before the change, nothing running."""
    loaded: Reading
    """Clocks before the change, under load."""
    memory: int
    """Memory clock that the change is to."""
    interval: float
    """Time that the driver wants between two switches, s."""
    do: tuple[Call, ...]
    """The calls that change."""
    undo: tuple[Call, ...]
    """The calls that give back."""
    state: State = "changing"
    note: str = ""
    """How it was restored, or why it is not yet."""

    def restored(self, note: str) -> Entry:
        """This entry, done with."""
        return dataclasses.replace(self, state="restored", note=note)


def path(folder: Path, uuid: str) -> Path:
    """Where the journal of `uuid` is."""
    return folder / f"clocks-{uuid}.json"


def write(folder: Path, entry: Entry) -> None:
    """Put `entry` in place of what was there, whole and on the disk itself when this returns. Raises `StorageError`."""
    goal = path(folder, entry.uuid)
    # One name: whoever writes holds the GPU's lock, and what a killed one left is written over.
    draft = goal.with_suffix(".draft")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with draft.open("w", encoding="utf-8") as file:
            json.dump(_document(entry), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(goal)
        _sync(folder)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise state.refused(goal, error) from None


def read(folder: Path, uuid: str) -> Entry | None:
    """The journal of `uuid`, or None where there is none. Raises `RecordError`, with the cure, for one that is damaged."""
    place = path(folder, uuid)
    try:
        return _entry(json.loads(place.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{place}: not a readable journal ({error}): this GPU's clocks may be changed; give them back with "
            f"`nvidia-smi -i {uuid} --reset-memory-clocks` and `nvidia-smi -i {uuid} --reset-gpu-clocks`, then remove the file"
        ) from None


def uuids(folder: Path) -> Iterator[str]:
    """The GPUs that have a journal in `folder`."""
    if folder.is_dir():
        for entry in sorted(folder.iterdir()):
            if match := _NAME.fullmatch(entry.name):
                yield match["uuid"]


def _document(entry: Entry) -> dict[str, Any]:
    calls = {"do": [call.document() for call in entry.do], "undo": [call.document() for call in entry.undo]}
    return {"schema": SCHEMA, **dataclasses.asdict(entry), **calls}


def _entry(document: dict[str, Any]) -> Entry:
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']}, this membound reads {SCHEMA}")
    given = {name: value for name, value in document.items() if name != "schema"}
    for name in ("do", "undo"):
        given[name] = tuple(Call.of(call) for call in given[name])
    for name in ("idle", "loaded"):
        given[name] = Reading(**{key: int(value) for key, value in given[name].items()})
    if given["state"] not in {"changing", "restored"} or not given["undo"] or not given["consent"]:
        raise ValueError("state, undo or consent are not what they must be")
    return Entry(**given)


def _sync(folder: Path) -> None:
    # A rename is on the disk only when the folder is.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
