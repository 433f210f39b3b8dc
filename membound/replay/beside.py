"""Kernels beside collectives: how much of each runs while one is on the links, and how much longer it then takes."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.contention import channels, slower
from membound.cost.resources import ROW
from membound.replay import intervals
from membound.replay.pricing import Prices
from membound.replay.timeline import Timeline
from membound.replay.workload import Workload
from membound.spec.machine import Machine
from membound.trace.schema import KIND

Floats = npt.NDArray[np.float64]

# Share of a step in which kernels run beside collectives, below which nobody looks closer.
_NOTHING: Final = 1e-3


def beside_collectives(line: Timeline, work: Workload, prices: Prices, machine: Machine) -> Floats | None:
    """Factors on the durations of items, [n, K], played once without them; None where hardly any kernel runs beside a collective.

    To first order: how long they run beside each other is taken from that first play.
    """
    program = work.program
    collective, kernel = (np.flatnonzero(program.kind == KIND[kind]) for kind in ("collective", "kernel"))
    if not len(collective) or not len(kernel):
        return None
    # Column by column, as they lie in memory.
    starts, ends = line.start.T, line.end.T
    # A whole step of DeepSpeed's has collectives in its last micro-step alone.
    kernel = kernel[(ends[:, kernel] > starts[:, collective].min(axis=1, keepdims=True)).any(axis=0)]
    if not len(kernel):
        return None
    begin, end = starts[:, kernel], ends[:, kernel]
    share = _shares(starts[:, collective], ends[:, collective], begin, end)
    if (share * (end - begin)).sum() < _NOTHING * ends.max(axis=1).sum():
        return None
    sms, hbm = _taken(ends[:, collective] - starts[:, collective], work, collective, machine)
    entry = prices.index[kernel]
    whole = np.where(prices.table[0] > 0, prices.table[0], 1.0)
    compute, memory = (np.ascontiguousarray((prices.table[ROW[name]] / whole).T)[:, entry] for name in ("compute", "hbm"))
    factors = np.ones(starts.shape)
    factors[:, kernel] += share * slower(compute, memory, sms[:, None], hbm[:, None], machine.gpu)
    return factors.T


def _shares(starts: Floats, ends: Floats, begin: Floats, end: Floats) -> Floats:
    """Of the time of each kernel, from `begin` to `end`, how much lies within some collective's; [K, kernels], collectives' likewise."""
    result = np.zeros(begin.shape)
    for k in range(len(result)):
        within = intervals.covered(starts[k], ends[k], np.concatenate([begin[k], end[k]]))
        length = np.maximum(end[k] - begin[k], 1e-12)
        result[k] = np.clip((within[len(length) :] - within[: len(length)]) / length, 0.0, 1.0)
    return result


def _taken(length: Floats, work: Workload, collective: npt.NDArray[np.int64], machine: Machine) -> tuple[Floats, Floats]:
    """SMs and HBM bandwidth that collectives take, in the mean over their time [K, collectives]; [K] each."""
    total = np.maximum(length.sum(axis=1), 1e-12)
    sms = (channels(work.program.ranks[collective].astype(np.float64), machine) * length).sum(axis=1) / total
    moved = (work.read[collective] + work.written[collective]).sum(axis=0)
    return sms, moved / total
