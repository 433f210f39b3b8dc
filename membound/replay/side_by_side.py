"""One program on many machines at once: their prices stand side by side as columns of one replay, and each gets what it would get alone.

Walking a program costs by its items, hardly by its columns: sixteen machines take some four times as long as one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.errors import InputError
from membound.replay.beside import beside_collectives
from membound.replay.outside import ranks_on_node
from membound.replay.pricing import Prices, priced
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
    # Machines go together that have one L2 and one host's launch costs.
    together: dict[tuple[int, bytes], list[_One]] = {}
    for at, machine in enumerate(machines):
        try:
            work = replayer.workload(machine.gpu)
            prices = priced(work, machine, ranks_on_node(replayer.trace, machine))
        except InputError as error:
            found[at] = error
            continue
        together.setdefault((id(work), prices.launch.tobytes()), []).append(_One(at, machine, work, prices))
    for group in together.values():
        for at, played in _side_by_side(replayer, group, columns):
            found[at] = played
    assert all(each is not None for each in found)
    return [each for each in found if each is not None]


def _side_by_side(replayer: Replayer, group: Sequence[_One], columns: int) -> Iterator[tuple[int, Played]]:
    header = replayer.trace.header
    width = len(group[0].work.lengths)
    abreast = max(columns // width, 1)
    for first in range(0, len(group), abreast):
        some = group[first : first + abreast]
        places = [slice(number * width, (number + 1) * width) for number in range(len(some))]
        line, _ = play_twice(replayer.program, _stacked([one.prices for one in some]), functools.partial(_slower, some, places))
        for one, own in zip(some, places, strict=True):
            accumulation = header.micro_steps + header.repeat - 1
            played = Played(one.work, one.prices, _columns(line, own), header.repeat, accumulation, header.ranks, replayer.lengths)
            yield one.at, played


def _stacked(prices: Sequence[Prices]) -> Prices:
    """All as columns of one. What a replay does not read is the first one's."""
    first = prices[0]
    table = np.concatenate([each.table for each in prices], axis=2)
    return Prices(table, first.index, first.launch, first.band, first.unknown)


def _slower(group: Sequence[_One], places: Sequence[slice], line: Timeline) -> npt.NDArray[np.float64] | None:
    """Factors of all side by side; None where no machine has any."""
    found = [beside_collectives(_columns(line, own), one.work, one.prices, one.machine) for one, own in zip(group, places, strict=True)]
    if all(each is None for each in found):
        return None
    alone = np.ones((len(line.start), places[0].stop))
    return np.concatenate([alone if each is None else each for each in found], axis=1)


def _columns(line: Timeline, these: slice) -> Timeline:
    start, end = (np.ascontiguousarray(moments[:, these]) for moments in (line.start, line.end))
    return Timeline(start, end, np.ascontiguousarray(line.host[:, these]), np.ascontiguousarray(line.borders[:, :, these]), line.segments)
