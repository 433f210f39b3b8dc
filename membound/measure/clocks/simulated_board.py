"""The state of a simulated driver: one file that every process sees, so that what a killed process changed stays changed.

board.json    boards, what was set on them, faults
calls.jsonl   every setting call that was made, in order, and by which process
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final

from membound.errors import UnknownNameError

FAULTS: Final = {
    "no_permission": False,  # every setting call is denied
    "deaf": False,  # setting calls succeed and change nothing
    "deaf_to_reset": False,  # resets succeed and change nothing
    "says_not_supported": False,  # setting calls succeed, print "not supported" and change nothing
    "offset_mhz": 0,  # a locked memory clock reads this much higher than it was set
    "lost": False,  # the GPU is gone
    "reasons_under_load": 0,  # clock event reasons while the GPU is loaded
}
"""What can go wrong, and how it is when nothing does."""

_BOARD, _CALLS, _LOCK = "board.json", "calls.jsonl", "board.lock"


def known() -> tuple[str, ...]:
    """Names of the boards that ship with membound."""
    folder = resources.files("membound.measure.clocks") / "boards"
    return tuple(sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json")))


def facts(name: str) -> dict[str, Any]:
    """What is recorded of the board `name`. Raises `UnknownNameError`."""
    if name not in known():
        raise UnknownNameError("board", name, known())
    text = (resources.files("membound.measure.clocks") / "boards" / f"{name}.json").read_text(encoding="utf-8")
    recorded: dict[str, Any] = json.loads(text)
    return recorded


def create(folder: Path, boards: Mapping[str, str], **changes: Any) -> None:
    """A simulated machine in `folder`: boards' names by UUID, with `changes` to their recorded facts."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "gpus": {
            uuid: {
                **facts(name),
                **changes,
                "locked_memory_mhz": None,
                "locked_core_mhz": None,
                "applications_mhz": None,
                "loaded": False,
                "pids": [],
            }
            for uuid, name in boards.items()
        },
        "faults": dict(FAULTS),
    }
    _write(folder, state)


def read(folder: Path) -> dict[str, Any]:
    """The state as it is now."""
    state: dict[str, Any] = json.loads((folder / _BOARD).read_text())
    return state


def change(folder: Path, how: Callable[[dict[str, Any]], None]) -> None:
    """Let `how` change the state, alone among processes and at once."""
    with _alone(folder):
        state = read(folder)
        how(state)
        _write(folder, state)


def fault(folder: Path, **faults: Any) -> None:
    """Set `faults` by their names in `FAULTS`."""
    for name in faults:
        if name not in FAULTS:
            raise UnknownNameError("fault", name, FAULTS)
    change(folder, lambda state: state["faults"].update(faults))


@contextmanager
def loaded(folder: Path, uuid: str) -> Iterator[None]:
    """The GPU under load."""
    change(folder, lambda state: state["gpus"][uuid].update(loaded=True))
    try:
        yield
    finally:
        change(folder, lambda state: state["gpus"][uuid].update(loaded=False))


def note(folder: Path, call: Mapping[str, Any]) -> None:
    """Put a setting call down in the log."""
    with (folder / _CALLS).open("a") as log:
        log.write(json.dumps({**call, "pid": os.getpid()}) + "\n")


def calls(folder: Path) -> list[dict[str, Any]]:
    """The setting calls so far."""
    path = folder / _CALLS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def reboot(folder: Path) -> None:
    """What a reboot does to clocks that were set: they are gone (NVML documentation of nvmlDeviceSetMemoryLockedClocks)."""

    def forget(state: dict[str, Any]) -> None:
        for gpu in state["gpus"].values():
            gpu.update(locked_memory_mhz=None, locked_core_mhz=None, applications_mhz=None, loaded=False, pids=[])
        state["faults"]["lost"] = False

    change(folder, forget)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(folder: Path, state: Mapping[str, Any]) -> None:
    draft = folder / f"{_BOARD}.{os.getpid()}"
    draft.write_text(json.dumps(state, indent=1))
    draft.replace(folder / _BOARD)
