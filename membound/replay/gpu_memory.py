"""One rank's GPU memory: the captured program through PyTorch's allocator, without a limit and, where that is needed, with the GPU's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from membound.replay import breakdown
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.allocator_walk import Walk
from membound.replay.caching_allocator import CachingAllocator
from membound.replay.memory_program import Column
from membound.replay.outside import Outside, outside
from membound.replay.pace import Pace
from membound.replay.releases import Releases
from membound.replay.result import Curve, GpuMemory
from membound.replay.script import Script, Scripts
from membound.replay.walked import Forgetful, Memo, Peak, Walked, peaked, walked
from membound.spec.machine import Machine
from membound.trace.schema import CATEGORIES, Trace
from membound.units import show

_FORGETFUL = Forgetful()


def gpu_memory(scripts: Scripts, machine: Machine, settings: AllocatorSettings, memo: Memo = _FORGETFUL, pace: Pace | None = None) -> GpuMemory:
    """Replay the GPU's part of the Trace of `scripts` on `machine`, whose `pace` says when memory that several streams use can be taken again.

    All is of rows at the cap, but what is reserved and used where rows that differ in length take more: those are replayed as well, and have to fit.
    Allocated is as PyTorch counts it, in whole blocks. Peaks are those of an allocator without limit; but where the GPU's limit makes PyTorch
    give back its cache and go on, reserved and used are what such a run shows, and `snapshot['reserved_without_limit']` holds the other, B.
    """
    trace, script = scripts.trace, scripts.of(machine.gpu.architecture)
    releases = script.releases(pace)
    free = replace(settings, per_process_memory_fraction=1.0)
    walk = _walk(script, releases, None, free, None, memo)
    around = outside(trace, machine)
    room = _room(machine, around, settings, walk.reserved_peak)
    limited = None if room is None else _walk(script, releases, room.capacity, settings, room.total, memo)
    why = None if limited is None else _why(trace, script, machine, around, walk.peak, limited.peak, settings)
    shown = limited if limited is not None and limited.failure is None else walk
    result = _result(trace, script, shown, machine, around)
    retries = limited.retries if limited is not None else 0
    snapshot = {} if shown is walk else {"reserved_without_limit": walk.reserved_peak}
    result = replace(result, fits=why is None, why=why, retries=retries, snapshot=snapshot)
    rows = scripts.varied(machine.gpu.architecture)
    return result if rows is None or why is not None else _of_rows(result, trace, rows, machine, around, settings, memo)


def _of_rows(
    result: GpuMemory, trace: Trace, script: Script, machine: Machine, around: Outside, settings: AllocatorSettings, memo: Memo
) -> GpuMemory:  # fmt: skip
    """`result` with what `script`, of rows of differing length, reserves, where that is more."""
    # One walk for all machines: by their times, which differ, 7B with offload comes to the same (20.0 GiB, docs/memory.md).
    releases, free = script.at_once, replace(settings, per_process_memory_fraction=1.0)
    walk = _peak(script, releases, None, free, None, memo)
    room = _room(machine, around, settings, walk.reserved_peak)
    limited = None if room is None else _peak(script, releases, room.capacity, settings, room.total, memo)
    why = None if limited is None else _why(trace, script, machine, around, walk, limited, settings)
    shown = limited if limited is not None and limited.failure is None else walk
    reserved = max(shown.reserved_peak, result.reserved_peak)
    taken = reserved + around.context.nominal + around.libraries.nominal
    return replace(
        result, reserved_peak=reserved, used_peak=taken + _resident(around, machine, taken), varied=True, fits=why is None,
        why=None if why is None else f"{why}, among rows of differing length", retries=max(result.retries, shown.retries),
        snapshot=result.snapshot if shown is walk else {"reserved_without_limit": walk.reserved_peak},
    )  # fmt: skip


@dataclass(frozen=True)
class _Room:
    """What a GPU leaves PyTorch's allocator, B."""

    capacity: int
    total: int
    """The whole of the GPU, of which settings may allow a share."""


def _walk(script: Script, releases: Releases, capacity: int | None, settings: AllocatorSettings, total: int | None, memo: Memo) -> Walked:
    walk, parts = _walker(script, releases, capacity, settings, total)
    return walked(walk, parts, memo)


def _peak(script: Script, releases: Releases, capacity: int | None, settings: AllocatorSettings, total: int | None, memo: Memo) -> Peak:
    walk, parts = _walker(script, releases, capacity, settings, total)
    return peaked(walk, parts, memo)


def _walker(
    script: Script, releases: Releases, capacity: int | None, settings: AllocatorSettings, total: int | None
) -> tuple[Callable[[], Walk], list[Any]]:
    """A walk, and all that it depends on."""
    # Where PyTorch collects its garbage by age, no turn of a cycle is like another.
    cycles = () if settings.garbage_collection_threshold else script.cycles
    parts = [script.content, releases.event, releases.block, capacity, settings, total]
    return lambda: Walk(CachingAllocator(capacity, settings, total), script.program, releases, cycles).go(), parts


def _room(machine: Machine, around: Outside, settings: AllocatorSettings, wanted: int) -> _Room | None:
    """What the GPU really leaves an allocator that wants so much, B; None where the limit is never met."""
    total = int(machine.gpu.hbm.capacity) - around.kept_back.nominal
    capacity = total - around.context.nominal - around.libraries.nominal
    if wanted <= min(capacity, int(settings.per_process_memory_fraction * total)) and settings.garbage_collection_threshold == 0.0:
        return None
    return _Room(max(capacity, 0), max(total, 0))


def _why(trace: Trace, script: Script, machine: Machine, around: Outside, walk: Peak, limited: Peak, settings: AllocatorSettings) -> str | None:
    failure, share = limited.failure, settings.per_process_memory_fraction
    if failure is None:
        return None
    needs = walk.reserved_peak + around.context.nominal + around.libraries.nominal
    total = max(machine.gpu.hbm.capacity - around.kept_back.nominal, 0)
    offers = show(total, "B") + (f", of which PyTorch may take {show(share * total, 'B')}" if share < 1.0 else "")
    at = breakdown.moment(trace, int(script.program.row[limited.reached]))
    return (
        f"each GPU needs {show(needs, 'B')} and {machine.gpu.name} offers {offers}: "
        f"out of memory for {show(failure.requested, 'B')} with {show(failure.allocated, 'B')} allocated, {breakdown.words(at)}"
    )


def _result(trace: Trace, script: Script, walk: Walked, machine: Machine, around: Outside) -> GpuMemory:
    sizes, reserved = walk.sizes, walk.reserved
    count = script.count
    live = np.cumsum(sizes[:count])
    peak = int(np.argmax(live)) if count else -1
    holdings = breakdown.holdings(trace, script.program, peak, sizes)
    at_peak = {name: sum(holding.nbytes for holding in holdings if holding.category == name) for name in CATEGORIES}
    allocated, reserved_peak = int(live.max(initial=0)), int(reserved.max(initial=0))
    context, libraries = around.context.nominal, around.libraries.nominal
    return GpuMemory(
        allocated_peak=allocated,
        reserved_peak=reserved_peak,
        active_peak=walk.active_peak,
        steady_allocated_peak=int(live[script.last_step :].max(initial=0)),
        steady_reserved_peak=int(reserved[script.last_step :].max(initial=0)),
        context=context,
        libraries=libraries,
        used_peak=reserved_peak + context + libraries + _resident(around, machine, reserved_peak + context + libraries),
        capacity=int(machine.gpu.hbm.capacity),
        fits=True,
        why=None,
        moment=breakdown.moment(trace, int(script.program.row[peak])) if peak >= 0 else breakdown.NOWHERE,
        at_peak=at_peak,
        holdings=holdings,
        curve=_curve(script, sizes, live, reserved),
    )


def _resident(around: Outside, machine: Machine, taken: int) -> int:
    """How much of the managed memory stays on the GPU: what does not fit beside the rest is paged out."""
    room = int(machine.gpu.hbm.capacity) - around.kept_back.nominal - taken
    return min(around.managed, max(room, 0))


def _curve(script: Script, sizes: Column, live: Column, reserved: Column) -> Curve:
    """The captured allocations and frees."""
    whole, count = script.program, script.count
    changed = sizes[:count] != 0
    wanted = script.captured & changed
    category = np.where(changed, whole.category[np.where(changed, whole.target[:count], 0)], -1) if count else np.empty(0, np.int64)
    by_category = {name: np.cumsum(np.where(category == code, sizes[:count], 0))[wanted] for code, name in enumerate(CATEGORIES)}
    return Curve(whole.row[:count][wanted], live[wanted], reserved[:count][wanted], by_category)
