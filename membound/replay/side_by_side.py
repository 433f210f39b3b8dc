"""One program on many machines at once: their prices stand side by side as columns of one replay, and each gets what it would get alone.

Walking a program costs by its items, hardly by its columns: sixteen machines take some four times as long as one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.errors import InputError
from membound.replay.beside import beside_collectives
from membound.replay.outside import ranks_on_node
from membound.replay.pricing import KernelPrices, Prices, kernel_prices, priced
from membound.replay.step import Played
from membound.replay.time import Replayer, at_clock, throttled
from membound.replay.timeline import Timeline, play_twice
from membound.replay.workload import Workload
from membound.spec.machine import Machine

COLUMNS: Final = 112
"""Columns of one replay at most, machines times row lengths: more of them no longer fit a core's own caches (`benchmarks/sweep.py`)."""

# As `Replayer.on`: above this share of its core clock a board counts as not held back.
_UNTHROTTLED: Final = 0.995


@dataclass(frozen=True)
class _One:
    """One machine of those that go side by side, and its number among all that are asked for."""

    at: int
    machine: Machine
    work: Workload
    prices: Prices


def on_each(replayer: Replayer, machines: Sequence[Machine], columns: int = COLUMNS) -> list[Played | InputError]:
    """`Replayer.on` of each machine, in their order; where that refuses a machine, its refusal. `columns` of one replay at most."""
    played = _played(replayer, machines, columns)
    slower = {
        at: share for at, each in enumerate(played) if isinstance(each, Played) and (share := throttled(each, machines[at].gpu)) <= _UNTHROTTLED
    }
    again = [machines[at].model_copy(update={"gpu": at_clock(machines[at].gpu, share)}) for at, share in slower.items()]
    for at, each in zip(slower, _played(replayer, again, columns), strict=True):
        played[at] = each
    return played


def _played(replayer: Replayer, machines: Sequence[Machine], columns: int) -> list[Played | InputError]:
    found: list[Played | InputError | None] = [None] * len(machines)
    asked: list[_One] = []
    # Machines of a sweep over links, or over hosts, have one GPU.
    kernels: dict[str, KernelPrices] = {}
    for at, machine in enumerate(machines):
        try:
            work, gpu = replayer.workload(machine.gpu), machine.gpu.model_dump_json()
            if gpu not in kernels:
                kernels[gpu] = kernel_prices(work, machine.gpu)
            asked.append(_One(at, machine, work, priced(work, machine, ranks_on_node(replayer.trace, machine), kernels[gpu])))
        except InputError as error:
            found[at] = error
    width = max((len(one.work.lengths) for one in asked), default=1)
    abreast = max(columns // width, 1)
    for first in range(0, len(asked), abreast):
        some = asked[first : first + abreast]
        lines = play_twice(replayer.program, [one.prices for one in some], [functools.partial(_slower, one) for one in some])
        for one, line in zip(some, lines, strict=True):
            found[one.at] = replayer.played(one.work, line)
    assert all(each is not None for each in found)
    return [each for each in found if each is not None]


def _slower(one: _One, line: Timeline) -> npt.NDArray[np.float64] | None:
    return beside_collectives(line, one.work, one.prices, one.machine)
