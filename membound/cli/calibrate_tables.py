"""A calibration on a terminal: each constant beside the reference's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from membound.cli.study_tables import titled

if TYPE_CHECKING:
    from rich.console import RenderableType

    from membound.study.calibration.fitting import Outcome


def tables(outcome: Outcome) -> list[RenderableType]:
    """Rates by family, then launch prices and factors; none after a dry run, whose numbers mean nothing."""
    if outcome.path is None:
        return []
    return [table for table in (_rates(outcome), _launch(outcome), _factors(outcome)) if table is not None]


def _rates(outcome: Outcome) -> RenderableType | None:
    made, reference = outcome.fitted.profile, outcome.fitted.reference
    head = ("family", "rows", "efficiency", "was", "elements/ns", "fixed us")
    rows = []
    for name, rate in made.families.items():
        counted, before = outcome.fitted.kernels.get(name, 0), reference.rate(name)
        fixed = f"{rate.fixed * 1e6:.1f}"
        rows.append((name, str(counted), f"{rate.efficiency:.3f}", f"{before.efficiency:.3f}", _elements(rate.elements), fixed))
    return titled(f"{made.gpu}, and the shipped profile of {reference.gpu}", head, rows)


def _elements(value: float) -> str:
    return "" if math.isinf(value) else f"{value * 1e-9:,.0f}"


def _launch(outcome: Outcome) -> RenderableType | None:
    made, reference = outcome.fitted.profile.launch, outcome.fitted.reference.launch
    rows = [(kind, f"{made[kind] * 1e6:.2f}", f"{reference[kind] * 1e6:.2f}") for kind in made]
    return titled("what the host pays", ("call", "us", "was"), rows)


def _factors(outcome: Outcome) -> RenderableType | None:
    rows = [(law, f"{value:.3f}") for law, value in outcome.fitted.profile.factors.items()]
    return titled("laws with constants of their own", ("law", "measured over predicted, median"), rows)


def lines(outcome: Outcome) -> Iterator[str]:
    """What was measured, what was not, and where the profile is."""
    measured, made = outcome.measured, outcome.fitted
    yield f"{len(measured.rows)} rows measured, {len(measured.failed)} failed"
    yield from (f"left out: {line}" for line in measured.left_out)
    if outcome.path is None:
        yield "a dry run: it all runs, and nothing was kept"
        return
    kept = [*made.profile.unmeasured, *made.kept]
    if kept:
        yield f"not measured, as before: {', '.join(kept)}"
    used = f"predictions for {made.profile.gpu} use it from now on" if outcome.used else "predictions do not use it: it is not in your profiles"
    yield f"written to {outcome.path}; {used}"
