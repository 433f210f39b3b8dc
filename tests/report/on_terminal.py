"""A Run's summary as a terminal shows it."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from membound.report.terminal import summary
from membound.run.schema import Run


def shown(run: Run, width: int = 100, colour: bool = False, encoding: str = "utf-8") -> str:
    """The summary on a terminal of this kind."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(file=out, width=width, color_system="truecolor" if colour else None, force_terminal=colour, legacy_windows=False, _environ={})
    console.print(summary(run))
    return raw.getvalue().decode(encoding)


def together(run: Run, **options: Any) -> str:
    """The same, with lines joined."""
    return " ".join(shown(run, **options).split())
