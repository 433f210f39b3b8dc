"""Where journals, locks and plans are kept: a folder of this user's that a reboot does not empty."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from membound.errors import InputError, StorageError

VARIABLE: Final = "MEMBOUND_STATE"


def folder() -> Path:
    """$MEMBOUND_STATE, else membound in the user's state folder (XDG Base Directory Specification 0.8). Raises `InputError` without a home."""
    if own := os.environ.get(VARIABLE):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "membound"
    except RuntimeError:
        raise InputError(VARIABLE, None, f"this user has no home folder: set {VARIABLE} to a folder for journals") from None


def refused(path: Path, error: OSError) -> StorageError:
    """One line for what the disk refused at `path`."""
    return StorageError(f"{path}: cannot be written ({error.strerror or error}): free some space, or name another folder with {VARIABLE}")


def boot() -> str:
    """Which start of the system this is (Linux: Documentation/admin-guide/sysctl/kernel.rst, random/boot_id); empty where there is no telling."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
