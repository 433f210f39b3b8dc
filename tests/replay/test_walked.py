"""A replay that is remembered is the replay itself; whatever it depends on makes another one of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.memory import replay
from membound.replay.result import Memory
from membound.spec import catalogue
from membound.spec.machine import Machine
from membound.trace.builder import TraceBuilder
from membound.trace.schema import PHASE, Trace

MIB = 1 << 20


@dataclass
class Notebook:
    """A Memo that counts."""

    pages: dict[str, Mapping[str, npt.NDArray[np.int64]]] = field(default_factory=dict)
    found: int = 0

    def get(self, key: str) -> Mapping[str, npt.NDArray[np.int64]] | None:
        self.found += key in self.pages
        return self.pages.get(key)

    def put(self, key: str, arrays: Mapping[str, npt.NDArray[np.int64]]) -> None:
        self.pages[key] = arrays


def trace(*sizes: int) -> Trace:
    """Two steps, in each of which `sizes` (MiB) are allocated, and freed in order."""
    builder = TraceBuilder()
    for step in range(2):
        builder.position.phase, builder.position.step, builder.position.micro = PHASE["forward"], step, 0
        for storage in [builder.alloc(0, size * MIB) for size in sizes]:
            builder.free(storage)
    numbers = {"rank": 0, "ranks": 1, "ranks_per_node": 1, "steps": 2, "micro_steps": 1, "repeat": 1, "parameters": 1, "trained": 1}
    return builder.finish(job={}, versions={}, **numbers)


def gpu(capacity: float | None = None) -> Machine:
    machine = catalogue.machine("h100-sxm")
    if capacity is None:
        return machine
    hbm = machine.gpu.hbm.model_copy(update={"capacity": capacity * MIB})
    return machine.model_copy(update={"gpu": machine.gpu.model_copy(update={"hbm": hbm})})


def facts(memory: Memory) -> dict[str, Any]:
    """What a Memory says, arrays as lists."""
    known = {name: value for name, value in vars(memory.gpu).items() if name != "curve"}
    curve = {name: value.tolist() for name, value in vars(memory.gpu.curve).items() if name != "by_category"}
    return known | curve


# Fits; has to give back its cache (60 and then 80 of 100 MiB beside context and driver); does not fit.
@pytest.mark.parametrize("machine", [gpu(), gpu(1600), gpu(1330)], ids=["fits", "retries", "out of memory"])
def test_what_is_remembered_is_what_was_found(machine: Machine) -> None:
    notes = Notebook()
    first = replay(trace(60, 80, 30), machine, memo=notes)
    assert notes.found == 0
    again = replay(trace(60, 80, 30), machine, memo=notes)
    assert notes.found == len(notes.pages) > 0
    assert facts(again) == facts(first) == facts(replay(trace(60, 80, 30), machine))


@pytest.mark.parametrize(
    "other",
    [
        {"trace": trace(60, 81)},
        {"trace": trace(80, 60)},
        {"settings": AllocatorSettings(expandable_segments=True)},
        {"settings": AllocatorSettings(max_split_size=64 * MIB)},
    ],
    ids=["a size", "an order", "segments", "splitting"],
)
def test_what_a_replay_depends_on_makes_another(other: dict[str, Any]) -> None:
    notes = Notebook()
    replay(trace(60, 80), gpu(), memo=notes)
    replay(other.get("trace", trace(60, 80)), gpu(), other.get("settings", AllocatorSettings()), notes)
    assert notes.found == 0
    assert len(notes.pages) == 2


def test_a_gpu_with_room_to_spare_is_the_same_replay_whatever_its_size() -> None:
    notes = Notebook()
    replay(trace(60, 80), gpu(), memo=notes)
    replay(trace(60, 80), gpu(60_000), memo=notes)
    assert (notes.found, len(notes.pages)) == (1, 1)
