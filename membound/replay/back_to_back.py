"""Kernels that follow each other on one stream with nothing between: their moments in one go, as a walk over them would find.

Each starts when its predecessor ends or when its launch arrives, whichever is later: s_i = max(e_(i-1), h_i), e_i = s_i + d_i. With D_i the sum
of durations up to i, e_i = D_i + max(tail, max over j <= i of (h_j - D_(j-1))): a running maximum. The j that gives the last one is where the
stream last waited for the host, and from there on its history is that of its kernels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from membound.cost.resources import ROW, Spent

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[np.int64]


def back_to_back(tail: Spent, host: Spent, launched: Floats, durations: Spent) -> tuple[Floats, Floats, Spent]:
    """Starts and ends of m kernels in K columns, [m, K] each, and the moment at which the stream is done with them, [ROWS, K].

    Args: `tail` moment at which the stream is free, `host` moment of the host before the first launch, [ROWS, K] each; `launched` seconds from then
    until each launch arrives [m, K]; `durations` [m, ROWS, K].
    """
    alone = durations[:, 0]
    summed = np.cumsum(alone, axis=0)
    arrived = launched - summed
    arrived += alone
    arrived += host[0]
    latest = np.maximum.accumulate(arrived, axis=0)
    waited = latest[-1] > tail[0]
    end = np.maximum(latest, tail[0])
    end += summed
    # A stream that is never out of work hangs on its kernels alone.
    joint = arrived.argmax(axis=0) if waited.any() else None
    done = tail + durations.sum(axis=0) if joint is None else _after_waiting(tail, host, launched, durations, joint, waited)
    done[0] = end[-1]
    return end - alone, end, done


def _after_waiting(tail: Spent, host: Spent, launched: Floats, durations: Spent, joint: Column, waited: npt.NDArray[np.bool_]) -> Spent:
    """As far as histories go, the moment after the last kernel: in the columns that `waited`, for the launch of kernel `joint` last."""
    since = np.arange(len(durations))[:, None] >= np.where(waited, joint, 0)
    begin = np.where(waited, host, tail)
    launch = np.where(waited, launched[joint, np.arange(len(joint))], 0.0)
    begin[0] += launch
    begin[ROW["launch"]] += launch
    found: Spent = begin + np.einsum("mrk,mk->rk", durations, since)
    return found
