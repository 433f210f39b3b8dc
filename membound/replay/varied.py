"""What rows of differing length ask of the GPU's allocator: step after step with other sizes, so that blocks which fitted do not fit again.

A step whose rows are all as long as the longest finds its own blocks again, and reserves little more than it allocates. One after another of other
lengths cuts those blocks up and asks the driver for more: 26.4 GiB against 20.3 where 25.9 were measured (`llama-3.2-1b-full-bf16-alpaca-8` of
`validation/h200`; 20.0 are allocated). How much more depends on the order of the rows: it is the Program's (`programs.data.Rows`), and of shuffled
data that is one order among many.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from membound.replay.cycles import again
from membound.replay.lengths import Ints, Lengths
from membound.replay.memory_program import Column, MemoryProgram, program
from membound.replay.program import between, row_length
from membound.replay.script import Script, captured_once
from membound.spec.lengths import ROWS
from membound.spec.machine import Architecture
from membound.trace.schema import Trace

_EVENTS: Final = 300_000
"""Allocations and frees that are replayed at most beyond the captured ones: some seconds. Chosen."""
_FEWEST: Final = 8
"""Micro-batches at least: many ranks are through the rows that a measured run is fed after one or two of each, a training is not."""
_LEAST: Final = 2
"""Steps that are replayed at least beyond the captured ones."""


def varied(trace: Trace, other: Trace, lengths: Lengths, architecture: Architecture) -> Script | None:
    """The script of `trace` over micro-batches of the data's own lengths, in the Program's order, the longest of them at the cap.

    `other` is a capture of the same Job with shorter rows: together the two fix each block's bytes as a function of length. None where the two do
    not ask the allocator for the same blocks in the same order, or where steps are no cycle.
    """
    if lengths.fixed or not _alike(program(trace, architecture), program(other, architecture)):
        return None
    once = captured_once(trace, architecture)
    in_round = max(_FEWEST, ROWS // (lengths.micro_batch * trace.header.ranks))
    turns = _turns(once, trace, in_round)
    repeated = again(once.program, once.last_step, len(once.program), turns)
    if repeated is None:
        return None
    whole = once.program.joined(repeated.turns)
    number = _micro_batches(whole, trace)
    fed = lengths.in_order(min(int(number.max(initial=0)) + 1, in_round), trace.header.ranks)
    fed[np.argmax(fed)] = lengths.cap
    sizes = _sizes(whole, other, fed[number[np.minimum(whole.born, len(whole) - 1)] % len(fed)], (row_length(trace), row_length(other)))
    return replace(once, program=replace(whole, nbytes=sizes), count=len(whole), cycles=())


def _alike(one: MemoryProgram, other: MemoryProgram) -> bool:
    """Whether both ask for the same blocks in the same order, of whatever sizes."""
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("action", "target", "stream", "origin"))


def _turns(once: Script, trace: Trace, in_round: int) -> int:
    """Further steps: a round of the rows, if that is not too much to replay."""
    in_step = trace.header.micro_steps + sum(cycle.turns for cycle in once.cycles)
    most = _EVENTS // max(1, len(once.program) - once.last_step)
    return max(_LEAST, min(-(-in_round // max(1, in_step)), most))


def _micro_batches(whole: MemoryProgram, trace: Trace) -> Column:
    """Number of the micro-batch at which each event is, from 0; events between two belong to the one before."""
    rows = trace.instructions
    micro, row = rows["micro"][np.minimum(whole.row, len(trace) - 1)].astype(np.int64), whole.row
    inside = np.flatnonzero(micro >= 0)
    # Where the program goes back to rows that it had, a further turn begins.
    begins = np.diff(micro[inside], prepend=-1) != 0
    begins |= np.diff(row[inside], prepend=-1) < 0
    number = np.zeros(len(whole), np.int64)
    number[inside] = np.cumsum(begins) - 1
    return np.maximum.accumulate(number)


def _sizes(whole: MemoryProgram, other: Trace, tokens: Ints, captured: tuple[int, int]) -> Column:
    """Bytes of each block, whose micro-batch has rows of so many `tokens`."""
    near = whole.nbytes.astype(np.float64)
    far = np.where(whole.origin >= 0, other.storages["nbytes"][np.maximum(whole.origin, 0)].astype(np.float64), near)
    sizes = whole.nbytes.copy()
    grows = near != far
    for length in np.unique(tokens[grows]).tolist():
        those = np.flatnonzero(grows & (tokens == length))
        sizes[those] = np.rint(between((near[those], far[those]), captured, length)).astype(np.int64)
    return sizes
