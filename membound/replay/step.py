"""An optimizer step from what was played: micro-steps repeated, lengths averaged, ranks waiting for the slowest."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost.power import Load
from membound.cost.resources import RESOURCES, ROW, Spent
from membound.replay import intervals
from membound.replay.lengths import Lengths, mean_weights
from membound.replay.pricing import Prices
from membound.replay.timeline import Timeline
from membound.replay.workload import Workload
from membound.trace.schema import KIND, PHASE, PHASES

Floats = npt.NDArray[np.float64]
Column = npt.NDArray[np.int64]

KINDS: Final = ("busy", "communication", "offload", "idle")
"""Parts of the time: a kernel or collective runs; only collectives run; only copies run or the host works on tensors; nothing runs."""

# Optimizer steps drawn where ranks only meet at the end of a step: the mean of their slowest rank then has settled to a per mille.
_DRAWS: Final = 400


@dataclass(frozen=True)
class Played:
    """A Workload played on a machine: everything about its captured step, by segment and row length."""

    work: Workload
    prices: Prices
    timeline: Timeline
    repeat: int
    """How often the middle micro-step happens."""
    accumulation: int
    ranks: int
    lengths: Lengths

    @property
    def grid(self) -> tuple[int, ...]:
        """Row lengths, K of them."""
        return self.work.lengths

    @functools.cached_property
    def times(self) -> int:
        """Micro-steps captured."""
        return int(self.work.program.micro.max()) + 1 if len(self.work.program) else 1

    @functools.cached_property
    def segment_phase(self) -> Column:
        """Phase of each segment."""
        return self.work.program.phase[self.timeline.segments]

    @functools.cached_property
    def count(self) -> Floats:
        """How often each segment happens in a step."""
        middle = (self.work.program.micro[self.timeline.segments] == 1) & (self.times > 2) & (self.segment_phase != PHASE["optimizer"])
        return np.where(middle, float(self.repeat), 1.0)

    @functools.cached_property
    def in_micro(self) -> npt.NDArray[np.bool_]:
        """Whether a segment belongs to a micro-step, and so to its row length, rather than to the optimizer."""
        return np.asarray(self.segment_phase != PHASE["optimizer"], np.bool_)

    @functools.cached_property
    def borders(self) -> Floats:
        """Moments where segments begin and end; [segments + 1, K]."""
        ends = self.timeline.borders[:, 0]
        return np.concatenate([np.zeros((1, ends.shape[1])), np.maximum.accumulate(ends)])

    @functools.cached_property
    def spent(self) -> Spent:
        """Each segment's duration, by resource; [segments, ROWS, K]."""
        return np.diff(self.timeline.borders, axis=0, prepend=np.zeros((1, *self.timeline.borders.shape[1:])))

    @functools.cached_property
    def parts(self) -> Floats:
        """Seconds of each segment by `KINDS`; [segments, KINDS, K]."""
        kernels, copies, host = (self._is(*kinds) for kinds in (("kernel",), ("copy_h2d", "copy_d2h"), ("host",)))
        computing, moving = self._covered(kernels), self._covered(kernels | self._is("collective") | copies | host)
        return np.stack([self.busy, self.busy - computing, moving - self.busy, np.diff(self.borders, axis=0) - moving], axis=1)

    @functools.cached_property
    def busy(self) -> Floats:
        """Seconds of each segment in which a kernel or collective runs; [segments, K]."""
        return self._covered(self._is("kernel", "collective"))

    def _is(self, *kinds: str) -> npt.NDArray[np.bool_]:
        return np.isin(self.work.program.kind, [KIND[kind] for kind in kinds])

    def _covered(self, which: npt.NDArray[np.bool_]) -> Floats:
        """Seconds of each segment in which one of the items `which` runs; [segments, K]."""
        start, end = self.timeline.start.T[:, which], self.timeline.end.T[:, which]
        found = [intervals.covered(*each) for each in zip(start, end, self.borders.T, strict=True)]
        return np.diff(np.stack(found, axis=1), axis=0)

    @functools.cached_property
    def flows(self) -> Floats:
        """What flows in each segment's items by `FLOWS`; [segments, FLOWS, K]."""
        cores, (items, seconds) = np.zeros((len(self.timeline.segments), len(self.grid))), self._on_cores
        np.add.at(cores, np.searchsorted(self.timeline.segments, items, "right") - 1, seconds)
        return np.concatenate([self.work.flows.by_segment, cores[:, None]], axis=1)

    @functools.cached_property
    def cores(self) -> Floats:
        """Seconds of host work, in which all of the rank's threads work beyond the one that launches; [n, K]."""
        found = np.zeros(self.work.moved.shape)
        items, seconds = self._on_cores
        found[items] = seconds
        return found

    @functools.cached_property
    def _on_cores(self) -> tuple[Column, Floats]:
        """Items of host work, and the seconds of each; [h] and [h, K]."""
        items = np.flatnonzero(self.work.program.kind == KIND["host"])
        return items, (self.prices.table[ROW["ddr"]] + self.prices.table[ROW["host_compute"]])[self.prices.index[items]]

    def load(self, rates: Mapping[str, Floats]) -> Load:
        """What the board's power follows from, given how fast each of `FLOWS` flows."""
        links = rates["nvlink"] + rates["h2d"] + rates["d2h"]
        plain = np.maximum(rates["flops"] - rates["tensor_flops"], 0.0)
        return Load(rates["tensor_flops"], plain, rates["elements"], rates["read"], rates["written"], rates["cached"], links)

    @functools.cached_property
    def together(self) -> bool:
        """Whether ranks wait for each other in every micro-step, rather than once a step."""
        program = self.work.program
        # In backward: DDP sends buffers around before the first forward of a step, whatever follows.
        inside = (program.kind == KIND["collective"]) & (program.phase == PHASE["backward"])
        return bool((inside & (program.micro == 0)).any())

    def mean(self, by_segment: Floats, rows: int | None = None) -> Floats:
        """A step's mean of a quantity given by segment and row length, [segments, ..., K] -> [...]. `rows`: the longest of how many sets
        the length; those of one micro-batch unless said."""
        weights = self.lengths.weights(self.grid, rows or self.lengths.micro_batch)
        return np.asarray(np.tensordot(self.count, by_segment @ weights, axes=(0, 0)), np.float64)

    def in_a_step(self, amounts: Floats) -> Floats:
        """How much of what is given by item and row length, [n, K], each item has in a step's mean; [n]."""
        weights = self.lengths.weights(self.grid, self.lengths.micro_batch)
        often = np.repeat(self.count, np.diff(self.timeline.segments, append=len(amounts)))
        return np.asarray((amounts @ weights) * often, np.float64)

    @functools.cached_property
    def own(self) -> Spent:
        """A rank's step without waiting for others, by resource; [ROWS]."""
        return self.mean(self.spent)

    @functools.cached_property
    def step(self) -> Spent:
        """The step, waiting for the slowest rank included, by resource; [ROWS]."""
        if self.ranks < 2 or self.lengths.fixed:
            return self.own
        if self.together:
            everyone = self.mean(self.spent, self.lengths.micro_batch * self.ranks)
            # A rank's optimizer does not depend on lengths, and collectives wait once.
            return everyone
        micro = np.where(self.in_micro, self.count, 0.0)
        return np.asarray(self.own + np.tensordot(micro, self.spent @ self._behind(), axes=(0, 0)), np.float64)

    def _behind(self) -> Floats:
        """By how much the grid's weights in the slowest rank's step differ from those in the mean rank's, over drawn steps; [K]."""
        micro = np.where(self.in_micro, self.count, 0.0)
        curve = np.tensordot(micro, self.spent[:, 0], axes=(0, 0))
        draws = max(min(_DRAWS, 20_000_000 // max(self.ranks * self.accumulation, 1)), 16)
        lengths = self.lengths.draws((draws, self.ranks, self.accumulation))
        slowest = np.interp(lengths, self.grid, curve).sum(axis=2).argmax(axis=1)
        return mean_weights(self.grid, lengths[np.arange(draws), slowest]) - mean_weights(self.grid, lengths)

    @property
    def waiting(self) -> float:
        """Seconds of a step in which a rank waits for slower ones; its GPU then spins in a collective."""
        return float(self.step[0] - self.own[0])

    def phase(self, name: str) -> float:
        """Seconds of a step in the phase `name`, its share of waiting included."""
        chosen = np.where(self.segment_phase == PHASES.index(name), self.count, 0.0)
        weights = self.lengths.weights(self.grid, self.lengths.micro_batch)
        own = float(np.tensordot(chosen, self.spent[:, 0] @ weights, axes=(0, 0)))
        return own * float(self.step[0] / self.own[0])

    @functools.cached_property
    def sensitivity(self) -> dict[str, float]:
        """By how many per cent the step gets shorter where each resource gets one per cent faster; they add up to 1."""
        return {name: float(self.step[ROW[name]] / self.step[0]) for name in RESOURCES}
