"""The phases of a program along its order: where load, forward, backward and optimizer begin, and how wide each is drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# No phase is drawn narrower than this share of the width: a fused optimizer is few operations, and may hold the peak.
_LEAST: Final = 0.045
# More than this many bands cannot be told apart.
_MOST: Final = 48


@dataclass(frozen=True)
class Span:
    """One phase of one micro-step: instructions from `start` up to `end`. Step and micro count from 0; step -1 is before the first."""

    start: int
    end: int
    phase: str
    step: int
    micro: int


def spans(table: pa.Table) -> tuple[Span, ...]:
    """The phases of a timeline table, each beginning where the former ends. Bands too many to tell apart are merged, by step at the last."""
    found = _absorb(_runs(table))
    if len(found) > _MOST:
        found = _join([replace(span, phase="step" if span.step >= 0 else span.phase, micro=-1) for span in found])
    return tuple(found)


def place(position: npt.NDArray[np.int64], bands: tuple[Span, ...]) -> npt.NDArray[np.float64]:
    """Instruction numbers on a 0 to 1 axis where each band has its share of the instructions, but none less than what can be seen."""
    lengths = np.array([max(band.end - band.start, 1) for band in bands], dtype=np.float64)
    widths = np.maximum(lengths / lengths.sum(), min(_LEAST, 0.5 / len(bands)))
    edges = np.concatenate([[0.0], np.cumsum(widths / widths.sum())])
    knots = np.array([bands[0].start, *(band.end for band in bands)], dtype=np.float64)
    return np.asarray(np.interp(position.astype(np.float64), knots, edges), dtype=np.float64)


def _runs(table: pa.Table) -> list[Span]:
    rows = table.num_rows
    at = np.asarray(table.column("instruction")).astype(np.int64)
    phase = np.asarray(table.column("phase").to_pylist(), dtype=object)
    step, micro = (np.asarray(table.column(name)).astype(np.int64) for name in ("step", "micro"))
    changes = (phase[1:] != phase[:-1]) | (step[1:] != step[:-1]) | (micro[1:] != micro[:-1])
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    ends = [*(int(at[row]) for row in starts[1:]), int(at[rows - 1]) + 1]
    return [Span(int(at[row]), end, str(phase[row]), int(step[row]), int(micro[row])) for row, end in zip(starts, ends, strict=True)]


def _absorb(runs: list[Span]) -> list[Span]:
    """Fetching data belongs to what follows; work between the phases of a step belongs to what went before."""
    kept: list[Span] = []
    pending: int | None = None
    for run in runs:
        if run.phase == "data" and run is not runs[-1]:
            pending = run.start if pending is None else pending
            continue
        begun = bool(kept) and kept[-1].step >= 0
        if kept and pending is None and (run.phase == "other" or (begun and run.step < 0)):
            kept[-1] = replace(kept[-1], end=run.end)
            continue
        kept.append(run if pending is None else replace(run, start=pending))
        pending = None
    return _join(kept)


def _join(runs: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for run in runs:
        last = joined[-1] if joined else None
        if last is not None and (last.phase, last.step, last.micro) == (run.phase, run.step, run.micro):
            joined[-1] = replace(last, end=run.end)
        else:
            joined.append(run)
    return joined
