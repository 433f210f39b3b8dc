"""What verbs share in speaking: results on standard output, progress on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

    from membound.ghost.capture import Progress

_WORDS = {"starting": "loading PyTorch", "building": "building the model", "training": "training on the ghost GPU", "writing": "keeping the trace"}


def write(text: str) -> None:
    """Print `text` on standard output, at once: where nobody reads on, it is known here."""
    sys.stdout.write(text)
    sys.stdout.flush()


def write_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    write(json.dumps(document, indent=1, allow_nan=False) + "\n")


def show(renderable: RenderableType) -> None:
    """Print something rich on standard output."""
    from rich.console import Console

    Console().print(renderable)
    sys.stdout.flush()


def discard_output() -> None:
    """Nobody reads standard output any more: let the rest, and Python's own last flush, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


@contextmanager
def progress() -> Iterator[tuple[Callable[[Progress], None], Callable[[str], None]]]:
    """A line on standard error that lives while a capture runs, on a terminal only: who hears of progress, and who sets its title."""
    if not sys.stderr.isatty():
        yield (lambda _: None), (lambda _: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), TimeElapsedColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking", total=None)
        title = ""

        def name(text: str) -> None:
            nonlocal title
            title = f"{text}: "
            bar.update(task, description=text, total=None, completed=0)

        def hear(at: Progress) -> None:
            bar.update(task, description=title + _WORDS.get(at.stage, at.stage), total=at.total or None, completed=at.done)

        yield hear, name
