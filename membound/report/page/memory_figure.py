"""The memory timeline of each Run that has one, in colours that follow the page's theme."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from membound.report import naming
from membound.report.charts.colours import css
from membound.report.charts.diagram import Diagram
from membound.report.charts.scale import say
from membound.report.page.drawing import NARROW
from membound.report.timeline import has_timeline, render
from membound.run.schema import Run

# The timeline's own wide layout begins here; the page shrinks it a little.
_WIDE: Final = 1000
_NARROWEST: Final = max(NARROW, 500)


def memory_over_program(runs: Mapping[str, Run]) -> Iterator[Diagram]:
    """One figure for each Run that holds a memory timeline. Raises `RecordError` for one that is damaged."""
    variables = {value.lower(): name for name, value in reversed(css("light").items())}
    for label, run in runs.items():
        if has_timeline(run):
            wide, narrow = (_themed(render(run, "svg", "light", width).decode(), variables) for width in (_WIDE, _NARROWEST))
            title = "GPU memory over the program" + (f", {label}" if len(runs) > 1 else "")
            yield Diagram(title=title, says=_says(run), source=f"{run.origin}, {naming.machine(run)}", svg=wide, narrow=narrow)


def _themed(svg: str, variables: Mapping[str, str]) -> str:
    """Fixed colours as the page's variables; black is what matplotlib leaves out."""
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: f"var({variables[match[0]]})" if match[0] in variables else match[0], svg)


def _says(run: Run) -> str:
    peak = run.number("gpu.memory.allocated.peak")
    moment = run.about.get("moment")
    where = naming.when(moment) if isinstance(moment, Mapping) else ""
    return f"Allocated memory peaks at {say(peak, 'B', 4)}{' ' + where if where else ''}." if peak is not None else ""
