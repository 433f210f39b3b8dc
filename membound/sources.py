"""What membound's own code was when something was kept: a change of it makes the kept thing stale."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path


@functools.cache
def digest(*parts: str) -> str:
    """SHA-256 over names and contents of all files of `parts`: files and folders of the package, such as "cost" or "study/plan.py".

    A part that is not there would be watched by nobody: that is a mistake of ours.
    """
    root = Path(__file__).resolve().parent
    assert all((root / part).exists() for part in parts), parts
    total = hashlib.sha256()
    for file in sorted(file for part in parts for file in _files(root / part)):
        total.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
