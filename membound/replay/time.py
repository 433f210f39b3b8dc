"""A Trace on a Machine in time: compiled, sent through the L2, priced, played over its streams, and averaged over row lengths."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from membound.cost.dispatch import Attention
from membound.cost.l2 import effective_capacity
from membound.cost.power import board_power, throttle, throttles
from membound.replay.beside import beside_collectives
from membound.replay.flows import FLOWS
from membound.replay.lengths import Lengths
from membound.replay.outside import ranks_on_node
from membound.replay.pace import Pace, deferring
from membound.replay.pricing import priced
from membound.replay.program import Program, compiled
from membound.replay.script import Script, Scripts
from membound.replay.step import Played
from membound.replay.timeline import Timeline, play_twice
from membound.replay.varied import varied
from membound.replay.walked import Memo
from membound.replay.workload import Workload, workload
from membound.spec.machine import Architecture, Gpu, Machine
from membound.trace.schema import Trace


@dataclass
class Replayer:
    """One Job's program, ready to be priced on any number of machines. Holds what does not depend on clocks."""

    trace: Trace
    lengths: Lengths
    other: Trace | None = None
    """A capture of the same Job at `lengths.second_capture()` tokens."""
    memo: Memo | None = None
    """Where HBM traffic is kept that was found before."""
    attention: Attention = "cudnn"
    """The newest fused attention that the software knows (`membound.cost.dispatch`)."""
    scripts: Scripts = field(init=False)
    """What is replayed of its memory."""
    _program: Program | None = None
    _workloads: dict[tuple[float, float, int], Workload] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scripts = Scripts(self.trace, self._varied)

    def _varied(self, architecture: Architecture) -> Script | None:
        return None if self.other is None else varied(self.trace, self.other, self.lengths, architecture)

    @property
    def program(self) -> Program:
        """The last captured step, compiled."""
        if self._program is None:
            self._program = compiled(self.trace, self.other)
        return self._program

    def workload(self, gpu: Gpu) -> Workload:
        """The program through the L2 of `gpu`."""
        cache = effective_capacity(gpu), gpu.l2, gpu.sms
        if cache not in self._workloads:
            grid = self.lengths.grid(self.trace.header.ranks, self.program.lengths)
            self._workloads[cache] = replace(workload(self.program, grid, gpu, self.memo), attention=self.attention)
        return self._workloads[cache]

    def on(self, machine: Machine) -> Played:
        """The Job's step on `machine`, which is already the part of it that the Job uses. Raises `InputError` for what the machine lacks.

        Where the board would draw more than its limit, its core clock falls until the limit holds, and all is priced again there.
        """
        played = self._play(machine)
        share = throttled(played, machine.gpu)
        if share > 0.995:
            return played
        return self._play(machine.model_copy(update={"gpu": at_clock(machine.gpu, share)}))

    def _play(self, machine: Machine) -> Played:
        work = self.workload(machine.gpu)
        prices = priced(work, machine, ranks_on_node(self.trace, machine))
        (line,) = play_twice(self.program, [prices], [lambda first: beside_collectives(first, work, prices, machine)])
        return self.played(work, line)

    def played(self, work: Workload, line: Timeline) -> Played:
        """`work` as it was played."""
        header = self.trace.header
        accumulation = header.micro_steps + header.repeat - 1
        return Played(work, line.prices, line, header.repeat, accumulation, header.ranks, self.lengths)


def pace(played: Played, trace: Trace) -> Pace | None:
    """How far the host is ahead of the streams, at the longest rows, which memory is planned for by `trace`. None where memory does not depend on it,
    or another capture is played."""
    program, line = played.work.program, played.timeline
    if not len(program) or not deferring(program.trace) or program.trace is not trace:
        return None
    longest = int(np.argmax(played.grid))
    ends = line.end[:, longest]
    done = {int(each): np.maximum.accumulate(np.where(program.stream == each, ends, 0.0)) for each in np.unique(program.stream)}
    return Pace(program.row, np.maximum.accumulate(line.host[:, longest]), done)


def throttled(played: Played, gpu: Gpu) -> float:
    """Core clock over that of the boards that were measured, as the board's limit allows: 1 where nothing has to give."""
    if not throttles(gpu):
        return 1.0
    busy = max(float(played.mean(played.busy)), 1e-9)
    rates = {name: np.array([amount / busy]) for name, amount in zip(FLOWS, played.mean(played.flows).tolist(), strict=True)}
    return throttle(gpu, board_power(gpu, played.load(rates)))


def at_clock(gpu: Gpu, share: float) -> Gpu:
    """`gpu` with its core clock held at `share` of what it would be: arithmetic and L2 fall, HBM does not."""
    peaks = {name: value * share for name, value in gpu.peaks.model_dump().items() if isinstance(value, float)}
    clock = gpu.clock.model_copy(update={"boost": gpu.clock.boost * share, "max": gpu.clock.max * share})
    return gpu.model_copy(update={"peaks": gpu.peaks.model_copy(update=peaks), "clock": clock})
