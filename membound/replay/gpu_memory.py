"""One rank's GPU memory: the captured program through PyTorch's allocator, without a limit and, where that is needed, with the GPU's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from membound.replay import breakdown
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.allocator_walk import Walk
from membound.replay.caching_allocator import CachingAllocator
from membound.replay.memory_program import Column, Flags, MemoryProgram, again, program, step_begins, with_middle_repeated
from membound.replay.outside import Outside, outside
from membound.replay.pace import Pace
from membound.replay.result import Curve, GpuMemory
from membound.replay.walked import Forgetful, Memo, Walked, walked
from membound.spec.machine import Machine
from membound.trace.schema import CATEGORIES, KIND, Trace
from membound.units import show

# Turns of a cycle that are replayed beyond the captured one: in the first the allocator meets its own leftovers, in the second it has settled.
_TURNS = 2


_FORGETFUL = Forgetful()


@dataclass(frozen=True)
class _Script:
    """What is replayed: the program, which of its events were captured, and further turns of the last step."""

    whole: MemoryProgram
    captured: Flags
    turns: MemoryProgram | None
    last_step: int
    """First event of the last step."""
    launched: Column
    """Launches up to each instruction."""
    pace: Pace | None

    def row(self, event: int) -> int:
        """Instruction of `event`, counted through the program and the turns after it."""
        rows = self.whole.row if self.turns is None else np.concatenate([self.whole.row, self.turns.row])
        return int(rows[event])


def gpu_memory(trace: Trace, machine: Machine, settings: AllocatorSettings, memo: Memo = _FORGETFUL, pace: Pace | None = None) -> GpuMemory:
    """Replay the GPU's part of `trace` on `machine`, whose `pace` says when memory that several streams use can be taken again.

    Allocated is as PyTorch counts it, in whole blocks. Peaks are those of an allocator without limit; but where the GPU's limit makes PyTorch
    give back its cache and go on, reserved and used are what such a run shows, and `snapshot['reserved_without_limit']` holds the other, B.
    """
    script = _script(trace, machine, pace)
    free = replace(settings, per_process_memory_fraction=1.0)
    walk = _walk(script, None, free, None, memo)
    around = outside(trace, machine)
    limited = _limited(script, machine, around, settings, walk.reserved_peak, memo)
    why = _why(trace, script, machine, around, walk, limited, settings.per_process_memory_fraction)
    shown = limited if limited is not None and limited.failure is None else walk
    result = _result(trace, script, shown, machine, around)
    retries = limited.retries if limited is not None else 0
    snapshot = {} if shown is walk else {"reserved_without_limit": walk.reserved_peak}
    return replace(result, fits=why is None, why=why, retries=retries, snapshot=snapshot)


def _script(trace: Trace, machine: Machine, pace: Pace | None) -> _Script:
    whole = program(trace, machine.gpu.architecture)
    last_step = whole.until(step_begins(trace))
    whole, captured = with_middle_repeated(whole, trace, min(trace.header.repeat - 1, _TURNS))
    turns = again(whole, last_step, len(whole), _TURNS) if trace.header.steps > 0 else None
    return _Script(whole, captured, turns[0] if turns is not None else None, last_step, _launched(trace), pace)


def _launched(trace: Trace) -> Column:
    kinds = [KIND[name] for name in ("kernel", "copy_h2d", "copy_d2h", "collective")]
    return np.cumsum(np.isin(trace.instructions["kind"], kinds)).astype(np.int64)


def _walk(script: _Script, capacity: int | None, settings: AllocatorSettings, total: int | None, memo: Memo) -> Walked:
    def walk() -> Walk:
        walk = Walk(CachingAllocator(capacity, settings, total), script.launched, script.pace)
        walk.go(script.whole)
        if walk.failure is None and script.turns is not None:
            walk.go(script.turns)
        return walk

    programs = [script.whole] if script.turns is None else [script.whole, script.turns]
    columns = [column for each in programs for column in (each.action, each.row, each.target, each.stream, each.nbytes)]
    known = [] if script.pace is None else script.pace.columns()
    return walked(walk, [*columns, script.launched, *known, capacity, settings, total], memo)


def _limited(script: _Script, machine: Machine, around: Outside, settings: AllocatorSettings, wanted: int, memo: Memo) -> Walked | None:
    """The walk of an allocator that has what the GPU really leaves it; None where the limit is never met."""
    total = int(machine.gpu.hbm.capacity) - around.kept_back.nominal
    capacity = total - around.context.nominal - around.libraries.nominal
    if wanted <= min(capacity, int(settings.per_process_memory_fraction * total)) and settings.garbage_collection_threshold == 0.0:
        return None
    return _walk(script, max(capacity, 0), settings, max(total, 0), memo)


def _why(trace: Trace, script: _Script, machine: Machine, around: Outside, walk: Walked, limited: Walked | None, share: float) -> str | None:
    if limited is None or limited.failure is None:
        return None
    failure = limited.failure
    needs = walk.reserved_peak + around.context.nominal + around.libraries.nominal
    total = max(machine.gpu.hbm.capacity - around.kept_back.nominal, 0)
    offers = show(total, "B") + (f", of which PyTorch may take {show(share * total, 'B')}" if share < 1.0 else "")
    at = breakdown.moment(trace, script.row(len(limited.sizes)))
    return (
        f"each GPU needs {show(needs, 'B')} and {machine.gpu.name} offers {offers}: "
        f"out of memory for {show(failure.requested, 'B')} with {show(failure.allocated, 'B')} allocated, {breakdown.words(at)}"
    )


def _result(trace: Trace, script: _Script, walk: Walked, machine: Machine, around: Outside) -> GpuMemory:
    sizes, reserved = walk.sizes, walk.reserved
    count = len(script.whole)
    live = np.cumsum(sizes[:count])
    peak = int(np.argmax(live)) if count else -1
    holdings = breakdown.holdings(trace, script.whole, peak, sizes)
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
        moment=breakdown.moment(trace, script.row(peak)) if peak >= 0 else breakdown.NOWHERE,
        at_peak=at_peak,
        holdings=holdings,
        curve=_curve(script, sizes, live, reserved),
    )


def _resident(around: Outside, machine: Machine, taken: int) -> int:
    """How much of the managed memory stays on the GPU: what does not fit beside the rest is paged out."""
    room = int(machine.gpu.hbm.capacity) - around.kept_back.nominal - taken
    return min(around.managed, max(room, 0))


def _curve(script: _Script, sizes: Column, live: Column, reserved: Column) -> Curve:
    """The captured allocations and frees."""
    whole = script.whole
    count = len(whole)
    wanted = script.captured & (sizes[:count] != 0)
    category = np.where(sizes[:count] != 0, whole.category[np.where(sizes[:count] != 0, whole.target, 0)], -1) if count else np.empty(0, np.int64)
    by_category = {name: np.cumsum(np.where(category == code, sizes[:count], 0))[wanted] for code, name in enumerate(CATEGORIES)}
    return Curve(whole.row[wanted], live[wanted], reserved[:count][wanted], by_category)
