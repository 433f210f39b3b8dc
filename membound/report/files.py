"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from membound.folders import disk_error


@contextlib.contextmanager
def atomically(path: Path) -> Iterator[IO[bytes]]:
    """A file to write; it becomes `path` when all went well, and leaves nothing behind when not. Raises `StorageError`."""
    draft = path.parent / f".draft-{secrets.token_hex(8)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("xb") as out:
            yield out
        os.replace(draft, path)
    except OSError as error:
        raise disk_error(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
