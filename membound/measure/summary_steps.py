"""Values from the marks of steps and phases: times and rates."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from membound.measure.evidence import NO_STEPS, Evidence, Floats, Values, exact, spread
from membound.run.schema import Missing

_PHASES: Final = ("forward", "backward", "optimizer")
_UNTRACED: Final = "needs a profiler trace of a step, and none was recorded"
_RATES: Final = ("tokens.rate", "tokens.rate.useful", "samples.rate")


def values(evidence: Evidence) -> Values:
    """step.time and its parts, and the rates."""
    found: Values = {f"step.time.{part}": Missing(_UNTRACED) for part in ("exposed_communication", "exposed_offload", "idle")}
    times = step_times(evidence)
    if not times.size:
        why = Missing(_why_no_steps(evidence))
        return found | dict.fromkeys(("step.time", *(f"step.time.{part}" for part in _PHASES), *_RATES), why)
    found["step.time"] = spread("step.time", float(np.median(times)), times, f"{_clock(evidence)}, median of {times.size} steps")
    for part in _PHASES:
        parts = _phase_times(evidence, part)
        found[f"step.time.{part}"] = (
            spread(f"step.time.{part}", float(np.median(parts)), parts, f"{_border_clock(evidence)}, median of {parts.size} steps")
            if parts.size
            else Missing(f"no phase {part} was marked")
        )
    return found | _rates(evidence, float(times.sum()))


def step_times(evidence: Evidence) -> Floats:
    """Times of the counted steps, s: of each step that of the rank that took longest."""
    longest: dict[int, float] = {}
    for steps in evidence.steps.values():
        for step in steps:
            longest[step.number] = max(longest.get(step.number, 0.0), step.seconds)
    return np.array(list(longest.values()))


def losses(evidence: Evidence) -> list[float | None]:
    """The loss of each step in order, as this node's first rank saw it; None where it was no finite number."""
    steps = evidence.facts("step")
    said = [line.get("loss") for line in steps[min(steps)]] if steps else []
    return [loss if loss is not None and math.isfinite(loss) else None for loss in said]


def _phase_times(evidence: Evidence, part: str) -> Floats:
    """Time of each counted step in phase `part`, s: all micro-steps together, mean over ranks."""
    spans = evidence.spans
    rows = spans.filter(pc.and_(pc.equal(spans["kind"], "phase"), pc.equal(spans["name"], part))).to_pylist()
    counted = {(rank, step.number) for rank, steps in evidence.steps.items() for step in steps}
    sums: dict[tuple[int, int], float] = {}
    for row in rows:
        key = row["rank"], row["step"]
        if key in counted and row["end"] is not None:
            sums[key] = sums.get(key, 0.0) + row["end"] - row["start"]
    by_step: dict[int, list[float]] = {}
    for (_, step), seconds in sums.items():
        by_step.setdefault(step, []).append(seconds)
    return np.array([np.mean(each) for each in by_step.values()])


def _rates(evidence: Evidence, seconds: float) -> Values:
    """Rates over the counted steps; `seconds` is their time."""
    counted = {step.number for steps in evidence.steps.values() for step in steps}
    fed = {rank: [line for line in lines if line["step"] in counted and "tokens" in line] for rank, lines in evidence.facts("step").items()}
    fed = {rank: lines for rank, lines in fed.items() if lines}
    if not fed or not any(_sum(lines, "rows") for lines in fed.values()):
        return dict.fromkeys(_RATES, Missing("nothing says what was fed"))
    basis = "counted as fed, over the time of the counted steps"
    ranks = len(fed)
    totals = {key: sum(_sum(lines, key) for lines in fed.values()) for key in ("rows", "tokens", "useful")}
    return {
        "tokens.rate": exact("tokens.rate", totals["tokens"] / seconds / ranks, basis),
        "tokens.rate.useful": exact("tokens.rate.useful", totals["useful"] / seconds / ranks, basis),
        "samples.rate": exact("samples.rate", totals["rows"] / seconds, basis),
    }


def _sum(lines: Iterable[dict[str, Any]], key: str) -> float:
    return float(sum(line[key] for line in lines))


def _why_no_steps(evidence: Evidence) -> str:
    if evidence.plan.command is not None:
        return "the command marks no steps: membound.measure.marking does, in a few lines"
    return f"{NO_STEPS}: {evidence.outcome.said}"


def _clock(evidence: Evidence) -> str:
    return "clock of the host around synchronised steps, the slowest rank's" if evidence.plan.device == "cuda" else "clock of the host around steps"


def _border_clock(evidence: Evidence) -> str:
    return "CUDA events at the phases' borders" if evidence.facts("gpu") else "clock of the host at the phases' borders"
