"""Marks in the user's own code, for `membound measure -- COMMAND`. Outside of one they cost nothing and say nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from membound.measure.marks import ENVIRONMENT, Kind, Marks, file_of

_PHASES: Final = {"load", "prepare", "data", "forward", "backward", "optimizer", "save"}


@contextmanager
def marking(name: str, step: int = -1, micro: int = -1) -> Iterator[None]:
    """Mark a block of a training script: `with marking("step", step=i):`, `with marking("forward", step=i, micro=j):`, or any name of your own.

    A block named `step` is an optimizer step: step times are taken from these. On a GPU, wait for it (`torch.cuda.synchronize()`) before such
    a block ends, or the mark says when the work was launched. Without `membound measure` around the script, nothing is written.
    """
    marks = own()
    if marks is None:
        yield
        return
    with marks.span(_kind(name), name, step, micro):
        yield


def note_step(step: int, **facts: Any) -> None:
    """Say of a step what it fed and found: `loss`, `rows`, `tokens`, `useful` (tokens that are no padding)."""
    marks = own()
    if marks is not None:
        marks.note("step", step=step, **facts)


@cache
def own() -> Marks | None:
    """This process's marks; None where nobody measures it."""
    folder = os.environ.get(ENVIRONMENT)
    if not folder or not Path(folder).is_dir():
        return None
    path = file_of(Path(folder), int(os.environ.get("RANK", "0")))
    # A second process without a rank of its own: its number keeps its marks apart.
    return Marks(file_of(Path(folder), os.getpid()) if path.exists() else path)


def _kind(name: str) -> Kind:
    if name in {"step", "micro-step"}:
        return "step" if name == "step" else "micro-step"
    return "phase" if name in _PHASES else "mark"
