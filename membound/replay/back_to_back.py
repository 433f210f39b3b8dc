"""What lies between the knots of a program on a machine: kernels and collectives that follow each other on one stream with nothing between.

Each starts when its predecessor ends or when its launch arrives, whichever is later: s_i = max(e_(i-1), h_i), e_i = s_i + d_i. With D_i the sum
of durations up to i, e_i = D_i + max(tail, max over j <= i of (h_j - D_(j-1))): a running maximum. The j that gives the last one is where the
stream last waited for the host, and from there on its history is that of its kernels.

So of all that lies before a knot two numbers count: how long it takes from the knots before, and how long from the one of the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.replay.knots import WORK, Knots
from membound.replay.pricing import Prices

Floats = npt.NDArray[np.float64]

# From cudaLaunchKernel's return to the kernel's start on an idle GPU, s: 2 to 3 us on Ampere and Hopper (NVIDIA forums and blog, "Understanding
# the visualization of overhead and latency in Nsight Systems").
START: Final = 2.5e-6


@dataclass(frozen=True)
class Between:
    """N knots, m items in the order of `Knots.order`, K columns; s."""

    knots: Knots
    seconds: Floats
    """Of each item; [K, m]."""
    slower: Floats | None
    """Factor on what each item would take alone, None for none; [K, m]."""
    rows: Floats
    """Of those that lie in rows, 0 of the others; [K, m]."""
    summed: Floats
    """Of them and all before them on their stream; [K, m]."""
    arrives: Floats
    """When its launch reaches the stream, from the knot of the host on; [K or 1, m]."""
    ahead: Floats
    """`arrives` less what the items before it take; [K, m]."""
    stay: Floats
    """What the items of each knot take; of a look at the queue, the item that must have begun; [N, K]."""
    launch: Floats
    """From its knot of the host on, when each knot is over as far as launches decide it, or a copy ready; -inf where none does; [N, K]."""

    @classmethod
    def of(cls, knots: Knots, prices: Prices, factor: Floats) -> Between:
        """On the machine of `prices`, whose launches take `factor` times as long; [K]."""
        seconds = np.take(np.ascontiguousarray(prices.table[0].T), prices.index[knots.order], axis=1)
        slower = None if prices.slower is None else np.take(prices.slower.T, knots.order, axis=1)
        if slower is not None:
            seconds *= slower
        # Copies and host work are no part of any row: their own knots say when they are over.
        rows, alone, works = seconds.copy(), knots.first[knots.alone], np.flatnonzero(knots.kind == WORK)
        rows[:, alone] = 0.0
        summed = np.empty(rows.shape)
        for begin, after in knots.chains:
            np.cumsum(rows[:, begin:after], axis=1, out=summed[:, begin:after])
        launches = np.concatenate([[0.0], np.cumsum(prices.launch)])
        # Where all columns launch alike, as they do on one machine, one row stands for all.
        alike = factor[:1] if (factor == factor[0]).all() else factor
        arrives = (launches[knots.order + 1] - launches[knots.since[knots.of_item] + 1]) * alike[:, None]
        arrives += np.where(knots.kind[knots.of_item] == WORK, 0.0, START)
        ahead = arrives - summed
        ahead += rows
        stay, launch = np.zeros((len(knots.kind), len(factor))), np.full((len(knots.kind), len(factor)), -np.inf)
        if len(knots.holding):
            held = knots.holding
            first, last = knots.first[held], knots.after[held] - 1
            stay[held] = (summed[:, last] - (summed[:, first] - rows[:, first])).T
            launch[held] = (np.maximum.reduceat(ahead, first, axis=1) + summed[:, last]).T
        stay[knots.alone] = seconds[:, alone].T
        # Of a copy, when it may begin: which of two comes first hangs on the last digit.
        launch[knots.alone] = np.broadcast_to(arrives[:, alone], seconds[:, alone].shape).T
        launch[works] += stay[works]
        stay[knots.queued] = seconds[:, knots.after[knots.other[knots.queued]] - 1].T
        bare = np.flatnonzero((knots.after == knots.first) & (knots.upto >= 0))
        launch[bare] = (launches[knots.upto[bare] + 1] - launches[knots.since[bare] + 1])[:, None] * factor
        return cls(knots, seconds, slower, rows, summed, arrives, ahead, stay, launch)

    def runs(self, moments: Floats) -> tuple[Floats, Floats]:
        """When items start and end whose knots are at `moments` [K, N]; [K, m] each."""
        knots = self.knots
        held, alone = knots.holding, knots.alone
        first = knots.first[held]
        latest = self.ahead + np.take(moments, knots.base[knots.of_item], axis=1)
        free = np.maximum(moments[:, knots.before[held]], moments[:, knots.other[held]])
        latest[:, first] = np.maximum(latest[:, first], free - (self.summed[:, first] - self.rows[:, first]))
        latest[:, knots.first[alone]] = moments[:, alone] - self.summed[:, knots.first[alone]]
        for begin, after in knots.chains:
            latest[:, begin:after] = np.maximum.accumulate(latest[:, begin:after], axis=1)
        latest += self.summed
        return latest - self.seconds, latest
