"""Recordings whose processes were all killed: their rings still lie in shared memory. What they hold is stored, and the memory given back."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Final

from membound.measure import manifest, spawn
from membound.measure.control import Control

FOLDER: Final = "folder"
"""File beside a recording's rings: where its parts are."""


def sweep() -> None:
    """Seal every recording of this machine that nobody works on any more. One that cannot be read is left alone."""
    for shared in spawn.shared_folder().glob("membound-*"):
        with contextlib.suppress(OSError, ValueError):
            _sweep(shared)


def _sweep(shared: Path) -> None:
    folder = Path((shared / FOLDER).read_text())
    if not (folder / "plan.json").exists():
        # Still being made, unless its folder was deleted as a whole.
        if not folder.exists():
            shutil.rmtree(shared)
        return
    plan = json.loads((folder / "plan.json").read_text())
    control = Control.open(shared)
    if not any(spawn.alive(pid) for pid in (plan["owner"], control.get("sampler_pid"), control.get("drain_pid")) if pid):
        seal(folder, control, manifest.KILLED)
        control.close(remove=True)


def seal(folder: Path, control: Control, ended: str) -> None:
    """Store what the rings hold beyond the parts, and say how the recording ended, if nobody has."""
    if manifest.read(folder).get("ended") or not control.get("epoch_ns"):
        return
    # Arrow is loaded here only where it is needed: this runs in the user's own process.
    from membound.measure.drain import Drain

    plan = json.loads((folder / "plan.json").read_text())
    Drain(folder, plan, control).finish(ended)
