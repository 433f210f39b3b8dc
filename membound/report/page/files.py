"""The page on disk: DIR/index.html, whole or not at all, and never over a page that somebody else made."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from membound.errors import InputError
from membound.folders import disk_error
from membound.report.files import atomically
from membound.report.page.html import MADE_BY, html
from membound.report.page.page import Page

NAME: Final = "index.html"
# The meta element stands near the beginning.
_HEAD: Final = 4096


def write(page: Page, folder: Path) -> Path:
    """Write `page` into `folder`; its path. Raises `StorageError`, and `InputError` where an index.html of others lies there."""
    path = folder / NAME
    check_place(path)
    text = html(page)
    with atomically(path) as out:
        out.write(text.encode())
    return path


def check_place(path: Path) -> None:
    """Raises `InputError` where `path` is a page that membound did not write."""
    try:
        if not path.exists():
            return
        with path.open("rb") as page:
            head = page.read(_HEAD)
    except OSError as error:
        raise disk_error(path, error) from None
    if MADE_BY.encode() not in head:
        raise InputError("--out", str(path), "this page was not written by membound: choose another folder")
