"""Folders that are written whole or not at all, and one line for whatever the disk refuses."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from membound.errors import StorageError

_CURES: Final = {
    errno.ENOSPC: "the disk is full: free some space or choose another disk (MEMBOUND_CACHE moves the cache)",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another disk (MEMBOUND_CACHE moves the cache)",
    errno.EROFS: "the disk is read-only: choose another folder",
    errno.EACCES: "permission denied: choose another folder",
    errno.EPERM: "permission denied: choose another folder",
    errno.ENOTDIR: "a part of this path is a file: choose another folder",
    errno.EEXIST: "a part of this path is a file: choose another folder",
}


@contextmanager
def whole(folder: Path, replace: bool = False) -> Iterator[Path]:
    """A draft folder to write into; it becomes `folder` when the block ends well, and is gone if it does not.

    If `folder` already holds something, `replace` puts the draft in its place; otherwise what is there stays, as good as ours: another
    process finished first. Raises `StorageError`.
    """
    draft = folder.parent / f".draft-{uuid.uuid4().hex}"
    try:
        draft.mkdir(parents=True)
        yield draft
        _move(draft, folder, replace)
    except OSError as error:
        raise disk_error(folder, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _move(draft: Path, folder: Path, replace: bool) -> None:
    try:
        os.replace(draft, folder)
    except OSError as error:
        # A rename onto a folder that is not empty is refused.
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        if replace:
            _exchange(draft, folder)


def _exchange(draft: Path, folder: Path) -> None:
    old = folder.parent / f".old-{uuid.uuid4().hex}"
    os.replace(folder, old)
    try:
        os.replace(draft, folder)
    except OSError:
        os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def disk_error(path: Path, error: OSError) -> StorageError:
    """One line for what a disk refused at `path`."""
    return StorageError(f"{path}: {_CURES.get(error.errno or 0, error.strerror or 'cannot be written')}")
