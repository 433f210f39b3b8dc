"""Recordings whose processes were all killed: their rings still lie in shared memory. What they hold is stored, and the memory given back."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any, Final

from membound.measure import manifest, spawn
from membound.measure.control import Control
from membound.measure.hold import Hold

FOLDER: Final = "folder"
"""File beside a recording's rings: where its parts are."""


def sweep() -> None:
    """Seal every recording of this machine that nobody works on any more. One that cannot be read is left alone."""
    for shared in spawn.shared_folder().glob("membound-*"):
        # Whatever is wrong with a recording that was killed, or is somebody else's: it must not stop the one that is about to start.
        with contextlib.suppress(Exception):
            _sweep(shared)


def _sweep(shared: Path) -> None:
    folder = Path((shared / FOLDER).read_text())
    hold = Hold.alone(shared)
    try:
        # A folder that is gone, or never had its plan, or holds a later recording, has nothing that could be sealed.
        if _shared_of(folder) == str(shared):
            control = Control.open(shared)
            seal(folder, control, manifest.KILLED)
            control.close()
        shutil.rmtree(shared)
    finally:
        hold.release()


def _shared_of(folder: Path) -> str | None:
    try:
        plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return plan.get("shared")


def seal(folder: Path, control: Control, ended: str) -> None:
    """Store what the rings hold beyond the parts, and say how the recording ended, if nobody has."""
    if manifest.read(folder).get("ended") or not control.get("epoch_ns"):
        return
    # Arrow is loaded here only where it is needed: this runs in the user's own process.
    from membound.measure.drain import Drain

    plan = json.loads((folder / "plan.json").read_text())
    Drain(folder, plan, control).finish(ended)
