"""The laws of streams as one reads them in docs/time.md: one item after the other, each moment with its whole history. Slow, and plain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from membound.cost.resources import ROW, Spent, nothing
from membound.replay.copy_engine import CopyEngine
from membound.replay.pricing import Prices
from membound.replay.program import Program
from membound.trace.schema import KINDS

Floats = npt.NDArray[np.float64]

START = 2.5e-6
QUEUE, LOOK = 1024, 128


@dataclass
class Played:
    """As `membound.replay.timeline.Timeline` has them."""

    start: Floats
    end: Floats
    host: Floats
    borders: Spent


def later(a: Spent, b: Spent) -> Spent:
    """The later of two moments, column by column, with its history."""
    return np.where(b[0] > a[0], b, a)


def played(program: Program, prices: Prices, factor: Floats) -> Played:
    """All items in order."""
    columns, count = prices.table.shape[2], len(program)
    found = Played(*(np.zeros((count, columns)) for _ in range(3)), nothing(0))
    host = communicator = nothing(columns)
    tails: dict[int, Spent] = {}
    events: dict[int, Spent] = {}
    joined: list[Spent] = []
    borders = []
    engines = {kind: CopyEngine() for kind in ("copy_h2d", "copy_d2h")}

    def tail(stream: int) -> Spent:
        return tails.get(stream, nothing(columns))

    def join() -> None:
        for moment in joined:
            tails[0] = later(tail(0), moment)
        joined.clear()

    for item in range(count):
        if item in program.segments[1:]:
            join()
            borders.append(later(tail(0), host))
        kind, stream, target = KINDS[program.kind[item]], int(program.stream[item]), int(program.target[item])
        duration = prices.table[:, prices.index[item]]
        host = plus(host, "launch", prices.launch[item] * factor)
        ready = later(tail(stream), plus(host, "launch", np.full(columns, START)))
        begin = end = None
        if kind == "kernel":
            begin = ready
            end = begin + (duration if prices.slower is None else duration * prices.slower[item])
            tails[stream] = end
        elif kind == "collective":
            begin = later(ready, communicator)
            end = communicator = begin + duration
            if program.detached[item]:
                joined.append(end)
            else:
                tails[stream] = end
        elif kind in engines:
            turn, _ = engines[kind].take(host[0], ready[0], duration[0])
            begin = plus(ready, "pcie", turn - ready[0])
            end = begin + duration
            tails[stream] = end
            if not program.flag[item]:
                host = later(host, end)
        elif kind == "host":
            begin, host = host, host + duration
            end = host
        elif kind == "record":
            events[target] = tail(stream)
        elif kind == "wait":
            tails[stream] = later(tail(stream), events.get(target, nothing(columns)))
        elif kind == "sync":
            for moment in list(tails.values()) if target < 0 else [tail(target)]:
                host = later(host, moment)
        if begin is not None and end is not None:
            found.start[item], found.end[item] = begin[0], end[0]
        found.host[item] = host[0]
        if item >= QUEUE and item % LOOK == 0:
            # Not before that item has begun, which is stream 0's doing as far as it got.
            begun = np.minimum(found.start[item - QUEUE], tail(0)[0])
            host = later(host, tail(0) * (begun / np.where(tail(0)[0] > 0, tail(0)[0], 1.0)))
    join()
    end_of_all = host
    for moment in (*tails.values(), communicator):
        end_of_all = later(end_of_all, moment)
    found.borders = np.stack([*borders, end_of_all])
    return found


def plus(moment: Spent, resource: str, seconds: Floats) -> Spent:
    """Later by so many seconds, which hang on `resource`."""
    found = moment.copy()
    found[[0, ROW[resource]]] += seconds
    return found
