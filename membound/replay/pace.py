"""How far the host is ahead of the GPU's streams at each instruction: what decides when memory that another stream used can be taken again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from membound.replay.program import Program
from membound.trace.schema import KIND, PLACE, Trace

Column = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pace:
    """The last captured step on a machine; s since it began. Of the earlier steps nothing is known."""

    row: Column
    """Instructions of the Trace that take time, rising; [n]."""
    host: Floats
    """When the host goes on after each; [n]."""
    done: dict[int, Floats]
    """By stream: when it is done with all that it was given up to each; [n]."""

    def at(self, row: Column) -> Column:
        """The last item at or before each of `row`; -1 where nothing is known."""
        inside = (row >= self.row[0]) & (row <= self.row[-1])
        return np.where(inside, np.searchsorted(self.row, row, "right") - 1, -1)

    def columns(self) -> list[npt.NDArray[np.generic] | int]:
        """All that it says, in order."""
        return [self.row, self.host, *(each for stream in sorted(self.done) for each in (stream, self.done[stream]))]


def at_once(program: Program) -> Pace:
    """A host that is never ahead: all streams are done with whatever they were given, all the time."""
    nothing = np.zeros(len(program))
    return Pace(program.row, nothing, {int(each): nothing for each in np.unique(program.stream)})


def deferring(trace: Trace) -> bool:
    """Whether any of the GPU's memory is used by another stream than its own: without that no free is deferred."""
    used = trace.instructions["target"][trace.instructions["kind"] == KIND["record_stream"]]
    return bool((trace.storages["place"][used] == PLACE["gpu"]).any())
