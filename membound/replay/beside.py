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
    # A whole step of DeepSpeed's has collectives in its last micro-step alone.
    kernel = kernel[(line.end[kernel] > line.start[collective].min(axis=0)).any(axis=1)]
    if not len(kernel):
        return None
    share = _shares(line, collective, kernel)
    length = line.end[kernel] - line.start[kernel]
    if (share * length).sum() < _NOTHING * line.end.max(axis=0).sum():
        return None
    sms, hbm = _taken(line, work, collective, machine)
    entry = prices.index[kernel]
    whole = np.where(prices.table[0] > 0, prices.table[0], 1.0)
    compute, memory = ((prices.table[ROW[name]] / whole)[entry] for name in ("compute", "hbm"))
    factors = np.ones(line.start.shape)
    factors[kernel] += share * slower(compute, memory, sms, hbm, machine.gpu)
    return factors


def _shares(line: Timeline, collective: npt.NDArray[np.int64], kernel: npt.NDArray[np.int64]) -> Floats:
    """Of each kernel's time, how much lies within some collective's; [kernels, K]."""
    result = np.zeros((len(kernel), line.start.shape[1]))
    for k in range(result.shape[1]):
        start, end = line.start[kernel, k], line.end[kernel, k]
        within = intervals.covered(line.start[collective, k], line.end[collective, k], np.concatenate([start, end]))
        length = np.maximum(end - start, 1e-12)
        result[:, k] = np.clip((within[len(start) :] - within[: len(start)]) / length, 0.0, 1.0)
    return result


def _taken(line: Timeline, work: Workload, collective: npt.NDArray[np.int64], machine: Machine) -> tuple[Floats, Floats]:
    """SMs and HBM bandwidth that collectives take, in the mean over their time; [K] each."""
    length = line.end[collective] - line.start[collective]
    total = np.maximum(length.sum(axis=0), 1e-12)
    sms = (channels(work.program.ranks[collective].astype(np.float64), machine)[:, None] * length).sum(axis=0) / total
    moved = (work.read[collective] + work.written[collective]).sum(axis=0)
    return sms, moved / total
