"""A measured Run on a terminal: how it ended, what was measured, and why the rest was not."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from membound.cli.compare import show
from membound.run.quantities import QUANTITIES
from membound.run.schema import Missing, Run, Value

if TYPE_CHECKING:
    from rich.console import RenderableType

# Reasons that are listed; the rest are told by --json.
_LISTED: Final = 6


def summary(run: Run) -> RenderableType:
    """Verdict, losses, values with their sensors, and the commonest reasons for what is missing."""
    from rich.console import Group
    from rich.markup import escape

    parts: list[RenderableType] = [f"[bold]{escape(_what(run))}[/bold]  {escape(_where(run))}", escape(_verdict(run))]
    losses = [loss for loss in run.about.get("losses", []) if loss is not None]
    if losses:
        parts.append(f"loss {losses[0]:.3f} in the first step, {losses[-1]:.3f} in the last of {len(losses)}")
    overhead = run.about.get("overhead")
    if overhead:
        parts.append(f"the sampler cost {overhead['share']:+.2%} of the step time; runs without it lie {overhead['spread_of_bare']:.2%} apart")
    return Group(*parts, "", _values(run), *_missing(run))


def _values(run: Run) -> RenderableType:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in ("measured", "", "by"):
        table.add_column(head, justify="right" if not head else "left", overflow="fold")
    for name in QUANTITIES:
        value = run.values.get(name)
        if isinstance(value, Value):
            table.add_row(name, escape(show(value.value, value.unit)), f"[dim]{escape(value.basis)}[/dim]")
    return table


def _missing(run: Run) -> list[str]:
    from rich.markup import escape

    reasons = Counter(value.reason for value in run.values.values() if isinstance(value, Missing))
    if not reasons:
        return []
    lines = [f"  [dim]{count:3d}  {escape(reason)}[/dim]" for reason, count in reasons.most_common(_LISTED)]
    return ["", f"{reasons.total()} quantities could not be had (all with --json):", *lines]


def _what(run: Run) -> str:
    if "command" in run.job:
        return " ".join(str(word) for word in run.job["command"])[:200]
    recipe = run.job["recipe"]
    rows = f"{recipe['micro_batch']} rows x {recipe['accumulation']}"
    return f"{run.job['model']}  {recipe['method']}, {recipe['precision']}, {recipe['optimizer']}, {recipe['engine']}, {rows}"


def _where(run: Run) -> str:
    gpus = run.machine.get("gpus", 0)
    name = run.machine.get("gpu", {}).get("name", "GPU")
    host = run.about.get("host", {}).get("cpu", "")
    return f"{gpus} x {name} ({run.machine.get('name')})" if gpus else f"no GPU; {host}"


def _verdict(run: Run) -> str:
    if not run.fits.gpu:
        return f"DOES NOT FIT ON THE GPU: {run.fits.why}"
    if not run.fits.host:
        return f"DOES NOT FIT ON THE HOST: {run.fits.why}"
    return run.fits.why or "it fits: all steps were done"
