"""One node's host memory: pageable and pinned storages of its ranks, loading included, on top of the system and the processes.

All ranks of a node are taken to hold the same at the same time. Page cache, such as that of checkpoint files, can be taken back at any time
and is not counted. A copy is taken to have left its pinned buffer when the program frees that buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from membound.cost.host_base import host_base
from membound.cost.linux_memory import offered, page_tables
from membound.replay import breakdown
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.outside import ranks_on_node
from membound.replay.pinned_allocator import PinnedAllocator, PinnedBlock
from membound.replay.result import HostMemory
from membound.spec.machine import Machine
from membound.trace.categories import lifetimes
from membound.trace.schema import CATEGORIES, CATEGORY, KIND, PHASE, PLACE, Trace
from membound.units import show

Column = npt.NDArray[np.int64]

SAVED = "saving (pageable)"


@dataclass(frozen=True)
class _Curves:
    """One rank's host memory after each allocation and free on the host, B."""

    rows: Column
    pageable: Column
    requested: Column
    """Of pinned tensors."""
    used: Column
    """Of pinned blocks in use."""
    reserved: Column
    """Of pinned blocks, cached ones too."""
    alone: Column
    """Of `pageable`, what rank 0 alone holds: the state that it gathers to save."""

    def node(self, ranks: int) -> Column:
        """What `ranks` ranks hold together."""
        return (self.pageable - self.alone + self.reserved) * ranks + self.alone


def host_memory(trace: Trace, machine: Machine, settings: AllocatorSettings) -> HostMemory:
    """Replay the host's part of `trace`, for all ranks of one of `machine`'s nodes."""
    curves = _curves(trace, settings)
    ranks = ranks_on_node(trace, machine)
    held = curves.node(ranks)
    peak = int(np.argmax(held)) if len(held) else -1
    base = host_base(ranks).nominal
    each = _by_category(trace, curves, peak)
    by_category = {name: nbytes * (1 if name == SAVED else ranks) for name, nbytes in each.items()}
    tables = page_tables(int(held.max(initial=0)))
    by_category |= {"page tables": tables} if tables else {}
    by_category["system and processes"] = base
    used = int(held.max(initial=0)) + tables + base
    pinned = int(np.argmax(curves.reserved)) if len(held) else -1
    capacity = int(machine.host.capacity)
    fits = used <= offered(capacity)
    return HostMemory(
        used_peak=used,
        pinned_peak=int(curves.reserved.max(initial=0)) * ranks,
        pageable_peak=int(((curves.pageable - curves.alone) * ranks + curves.alone).max(initial=0)),
        base=base,
        capacity=capacity,
        fits=fits,
        why=None if fits else _why(trace, machine, by_category, used, int(curves.rows[peak]) if peak >= 0 else -1),
        by_category=by_category,
        rounding=int(curves.used[pinned] - curves.requested[pinned]) * ranks if pinned >= 0 else 0,
    )


def _curves(trace: Trace, settings: AllocatorSettings) -> _Curves:
    rows, storages = trace.instructions, trace.storages
    events = trace.select("alloc", "free")
    target = rows["target"][events]
    place = storages["place"][target]
    kept = np.isin(place, [PLACE["host"], PLACE["pinned"]]) & (storages["nbytes"][target] > 0)
    events, target, pinned = events[kept], target[kept], place[kept] == PLACE["pinned"]
    gained = np.where(rows["kind"][events] == KIND["alloc"], 1, -1) * storages["nbytes"][target]
    held = np.zeros((len(events) + 1, 3), np.int64)
    held[1:][pinned] = _pinned(target[pinned], gained[pinned], settings)
    # Between pinned events the pinned memory stays as the last of them left it.
    latest = np.maximum.accumulate(np.where(pinned, np.arange(1, len(events) + 1), 0))
    requested, used, reserved = held[latest].T
    alone = np.where(_saved(trace)[target] & ~pinned, gained, 0)
    return _Curves(events, np.cumsum(np.where(pinned, 0, gained)), requested, used, reserved, np.cumsum(alone))


def _pinned(targets: Column, gained: Column, settings: AllocatorSettings) -> Column:
    """Bytes requested, used and reserved after each pinned allocation and free."""
    allocator = PinnedAllocator(settings)
    live: dict[int, PinnedBlock] = {}
    held = []
    for target, nbytes in zip(targets.tolist(), gained.tolist(), strict=True):
        if nbytes > 0:
            live[target] = allocator.malloc(nbytes)
        else:
            allocator.free(live.pop(target))
        held.append((allocator.requested, allocator.used, allocator.reserved))
    return np.array(held, np.int64).reshape(len(held), 3)


def _by_category(trace: Trace, curves: _Curves, peak: int) -> dict[str, int]:
    """One rank's bytes by category and kind at the peak."""
    if peak < 0:
        return {}
    rows, storages = trace.instructions, trace.storages
    events = curves.rows[: peak + 1]
    target = rows["target"][events]
    gained = np.where(rows["kind"][events] == KIND["alloc"], 1, -1) * storages["nbytes"][target]
    category = np.where(_loaded(trace)[target], len(CATEGORIES), storages["category"][target])
    category = np.where(_saved(trace)[target], len(CATEGORIES) + 1, category)
    found: dict[str, int] = {}
    for place, kind in (("host", "pageable"), ("pinned", "pinned")):
        here = storages["place"][target] == PLACE[place]
        for code, name in enumerate((*CATEGORIES, "loading", "saving")):
            nbytes = int(gained[here & (category == code)].sum())
            if nbytes:
                found[f"{name} ({kind})"] = nbytes
    extra = {"rounding (pinned)": curves.used[peak] - curves.requested[peak], "cached (pinned)": curves.reserved[peak] - curves.used[peak]}
    return found | {name: int(nbytes) for name, nbytes in extra.items() if nbytes}


def _loaded(trace: Trace) -> npt.NDArray[np.bool_]:
    """The storages that only loading or preparing the model needs: what they hold goes elsewhere under a name of its own."""
    births, _ = lifetimes(trace)
    early = np.isin(trace.instructions["phase"][births], [PHASE["load"], PHASE["prepare"]])
    result: npt.NDArray[np.bool_] = early & (trace.storages["category"] == CATEGORY["temporaries"])
    return result


def _saved(trace: Trace) -> npt.NDArray[np.bool_]:
    """The storages of the state that is gathered to be saved, on rank 0 alone."""
    births, _ = lifetimes(trace)
    result: npt.NDArray[np.bool_] = trace.instructions["phase"][births] == PHASE["save"]
    return result


def _why(trace: Trace, machine: Machine, by_category: dict[str, int], used: int, row: int) -> str:
    largest = max(by_category, key=lambda name: by_category[name])
    return (
        f"each node needs {show(used, 'B')} of host memory and {machine.name} has {show(machine.host.capacity, 'B')}, "
        f"of which Linux leaves {show(offered(int(machine.host.capacity)), 'B')}: "
        f"the most is {largest}, {show(by_category[largest], 'B')}, {breakdown.words(breakdown.moment(trace, row))}"
    )
