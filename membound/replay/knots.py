"""The moments of a program that others hang on, its knots, and what each hangs on: worked out once, for all machines (`membound.replay.tying`).

Between two knots of a stream lie kernels and collectives that follow each other with nothing between: when each of them runs follows from the knots
(`membound.replay.back_to_back`). So a walk over a program (`membound.replay.walk`) turns once for each knot, and not for each item.

Every knot is the latest of three: its stream's knot before it and another's, both with the durations of its own items; and its launch by the host,
which counts from a knot too, the last at which the host waited or worked.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.int64]

JOIN, WORK, TO_GPU, TO_HOST, QUEUED = range(5)
"""What a knot is: the latest of what it hangs on; when host work is done; when a copy is; when the queue has room for what the host launches next."""

# What a walk does at a knot, the knot, the one before and the other one that it waits for.
Turn = tuple[int, int, int, int]
AFTER_ONE, AFTER_TWO, ITEMS_AFTER_ONE, ITEMS_AFTER_TWO, HOST_WORK, COPY_TO_GPU, COPY_TO_HOST, LOOK = range(8)


@dataclass(frozen=True)
class Knots:
    """N knots, each after those that it hangs on; the first one is the beginning of the step. m items that take time, n of the program."""

    kind: Column
    """[N]"""
    before: Column
    """Knot of its stream before it; [N]."""
    other: Column
    """Another knot that it waits for, 0 for none; [N]. QUEUED: the one whose last item must have begun."""
    base: Column
    """Knot from which the host's launches count; [N]."""
    since: Column
    """The last item whose launch is not counted any more; [N]."""
    upto: Column
    """The last item whose launch is counted, for a knot without items; -1 for one that nobody launches; [N]."""
    first: Column
    """Where its items begin; [N]."""
    after: Column
    """Where they end; [N]."""
    order: Column
    """All items that take time, by stream; those of a knot, and the knots of a stream, one after the other; [m]."""
    chains: tuple[tuple[int, int], ...]
    """Where each stream's items lie, host work and collectives that stand apart as streams of their own."""
    borders: Column
    """Knots at which the segments of the step end; [segments]."""
    epochs: Column
    """Knots from which the host's launches count, in order; [E]."""
    begins: Column
    """The first item after which the host has gone on from each of them; [E]."""
    counted: Column
    """The last item whose launch is not counted from there on; [E]."""

    @functools.cached_property
    def holding(self) -> Column:
        """The knots that have items, in the items' order."""
        held = np.flatnonzero(self.after > self.first)
        return held[np.argsort(self.first[held])]

    @functools.cached_property
    def of_item(self) -> Column:
        """Knot of each item in `order`; [m]."""
        return np.repeat(self.holding, (self.after - self.first)[self.holding])

    @functools.cached_property
    def alone(self) -> Column:
        """Those of copies and host work, each of which is one item."""
        return np.flatnonzero((self.kind == TO_GPU) | (self.kind == TO_HOST) | (self.kind == WORK))

    @functools.cached_property
    def copies(self) -> Column:
        """Those of copies."""
        return np.flatnonzero((self.kind == TO_GPU) | (self.kind == TO_HOST))

    @functools.cached_property
    def queued(self) -> Column:
        """Those at which the queue has room."""
        return np.flatnonzero(self.kind == QUEUED)

    @functools.cached_property
    def turns(self) -> list[tuple[int, int, int, list[Turn]]]:
        """What a walk does: by knot of the host, the knots whose launch counts from it, first and one after the last, and a turn for each."""
        lasts = (self.after > self.first).astype(np.int64)
        does = np.where(self.kind == JOIN, 2 * lasts + (self.other > 0), self.kind + (ITEMS_AFTER_TWO - JOIN))
        turns = list(zip(does.tolist(), range(len(does)), self.before.tolist(), self.other.tolist(), strict=True))
        starts = self.epochs.tolist()
        return [(base, base + 1, end + 1, turns[base + 1 : end + 1]) for base, end in zip(starts, [*starts[1:], len(does) - 1], strict=True)]
