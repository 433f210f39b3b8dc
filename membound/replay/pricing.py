"""What each item of a Workload costs on a Machine, split over the resources that it hangs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost import collectives, launch, nvme, pcie
from membound.cost.ddr import work_seconds
from membound.cost.dispatch import FLASH_1
from membound.cost.laws import LAWS
from membound.cost.power import Load, held
from membound.cost.profile import Profile, profile_of
from membound.cost.resources import ROW, ROWS, Spent
from membound.replay.program import Program
from membound.replay.workload import Workload
from membound.spec.host import CALIBRATED, PLAIN_SERVER, Host
from membound.spec.machine import Gpu, Machine
from membound.trace.schema import KIND, PHASE

Column = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prices:
    """Durations on one machine: `table[:, index[i]]` is item i's; [ROWS, entries, K]."""

    table: Spent
    index: Column
    launch: Floats
    """Host seconds of each item's launch, with the views before it; [n]."""
    band: Floats
    """Relative half-width of each entry's band; [entries]."""
    unknown: Floats
    """Seconds of each entry that no law knows; [entries, K]."""
    slower: Floats | None = None
    """Factor on each item's duration for what runs beside it; [n, K], None for none."""


@dataclass(frozen=True)
class KernelPrices:
    """Durations of a Workload's distinct kernels on a GPU, whatever machine it is in."""

    table: Spent
    """[ROWS, distinct, K]"""
    band: Floats
    """As `Prices` has them; [distinct]."""
    unknown: Floats
    """Likewise; [distinct, K]."""


_ATTENTION: Final = ("attention forward", "attention backward")


def kernel_prices(work: Workload, gpu: Gpu) -> KernelPrices:
    """Those of `work` on `gpu`."""
    count = len(work.lengths)
    table = np.zeros((ROWS, work.distinct, count))
    band, unknown = np.zeros(work.distinct), np.zeros((work.distinct, count))
    for group in work.groups:
        law = LAWS[group.law]
        found = law.price(group.on(gpu) if work.attention == "cudnn" else group.kernels, gpu)
        if work.attention == "flash-1" and law.family in _ATTENTION:
            found = found.times(FLASH_1)
        shape = (count, len(group.members))
        seconds = found.seconds.reshape(shape).T
        table[0, group.members] = seconds
        for name, part in (("compute", found.compute), ("hbm", found.memory), ("fixed", found.fixed)):
            table[ROW[name], group.members] = seconds * part.reshape(shape).T
        band[group.members] = found.band.reshape(shape).T.max(axis=1)
        if law is LAWS[-1]:
            unknown[group.members] = seconds
    _hold(table, work, gpu)
    return KernelPrices(table, band, unknown)


def priced(work: Workload, machine: Machine, ranks_on_node: int, kernels: KernelPrices | None = None) -> Prices:
    """The durations of `work` on `machine`, `ranks_on_node` of whose GPUs run alike; `kernels` where those of its GPU are known.

    Raises `InputError` where the machine lacks what it takes.
    """
    known = kernels or kernel_prices(work, machine.gpu)
    others, count = work.others, len(work.lengths)
    table = np.zeros((ROWS, work.distinct + len(others), count))
    table[:, : work.distinct] = known.table
    band = np.concatenate([known.band, np.full(len(others), _LINK_BAND)])
    unknown = np.concatenate([known.unknown, np.zeros((len(others), count))])
    index = work.index.copy()
    index[others] = work.distinct + np.arange(len(others))
    _links(table[:, work.distinct :], work, machine, ranks_on_node)
    profile = profile_of(machine.gpu)
    return Prices(table, index, _launches(work.program, profile) * _call_time(machine.host, profile), band, unknown)


def _hold(table: Spent, work: Workload, gpu: Gpu) -> None:
    """Lengthen the arithmetic of kernels, [ROWS, distinct, K], until the board draws no more than it may, in micro-steps and in the optimizer alone.

    Both are longer than the time over which a board takes its mean, and layers within them much shorter.
    """
    for chosen in work.phases:
        times = work.times[chosen, None]
        done = Load(*((np.asarray(getattr(work.amounts, name))[chosen] * times).sum(axis=0) for name in Load.__dataclass_fields__))
        arithmetic, seconds = ((table[row][chosen] * times).sum(axis=0) for row in (ROW["compute"], 0))
        speed = held(gpu, arithmetic, seconds, done)
        if speed is None:
            return
        more = table[ROW["compute"]][chosen] * (1 / speed - 1)
        table[0, chosen] += more
        table[ROW["compute"], chosen] += more


# Links and host work: see the laws' own evidence (docs/laws).
_LINK_BAND: Final = 0.15


def _links(table: Spent, work: Workload, machine: Machine, ranks_on_node: int) -> None:
    """Prices of copies, collectives and host work, into `table` [ROWS, items, K]."""
    those, count = work.transfers, len(work.lengths)
    moved, ranks = work.moved[work.others], work.program.ranks[work.others].astype(np.float64)

    def enter(chosen: npt.NDArray[np.bool_], price: Callable[[Floats, Column], Spent]) -> None:
        # All lengths in one call, one after the other.
        if chosen.any():
            found = price(moved[chosen].T.ravel(), np.tile(np.flatnonzero(chosen), count))
            table[:, chosen] = np.moveaxis(found.reshape(ROWS, count, -1), 1, 2)

    enter(those.copies, lambda nbytes, at: pcie.copy_seconds(nbytes, those.pinned[at], machine, ranks_on_node, those.locked))
    enter(those.cores, lambda _, at: work_seconds(those.nbytes[at], machine, ranks_on_node, those.locked_bytes[at], those.locked))
    on_drives = those.drives & (moved > 0).any(axis=1)
    enter(on_drives, lambda nbytes, at: nvme.file_seconds(nbytes, those.ops[at] == "nvme.write", machine, ranks_on_node))
    enter(those.collectives, lambda nbytes, at: collectives.spent(list(those.ops[at]), nbytes, ranks[at], machine))


_CALLS: Final = {
    "kernel": "kernel", "copy_h2d": "copy", "copy_d2h": "copy", "collective": "collective", "host": "host", "record": "event", "wait": "event",
    "sync": "sync",
}  # fmt: skip


# Where DeepSpeed hangs its hooks on modules, as lines of the Trace name it.
_HOOKS: Final = "deepspeed/runtime/zero/parameter_offload.py"


def _launches(program: Program, profile: Profile) -> Floats:
    calls = np.zeros(max(KIND.values()) + 1, np.int64)
    for kind, call in _CALLS.items():
        calls[KIND[kind]] = launch.KINDS.index(call)
    engine = program.trace.header.job.get("recipe", {}).get("engine")
    collective = (program.kind == KIND["collective"]) & (program.phase != PHASE["optimizer"])
    prepared = {"fsdp": "gather", "deepspeed": "reduce"}.get(str(engine), "collective")
    own = np.where(collective, launch.KINDS.index(prepared), calls[program.kind])
    if engine == "deepspeed":
        own = np.where(collective & _gathers(program), launch.KINDS.index("fetch"), own)
    backward = program.phase == PHASE["backward"]
    model = backward | (program.phase == PHASE["forward"])
    hooks = _hooks(program, profile, backward) if _hooked(program) else None
    return launch.launch_seconds(profile, own, model, backward, program.views, program.modules, program.tensors, hooks)


def _gathers(program: Program) -> npt.NDArray[np.bool_]:
    gathers = np.array(["allgather" in name for name in program.trace.header.ops], np.bool_)
    return np.asarray(gathers[program.op], np.bool_)


def _hooked(program: Program) -> bool:
    """Whether ZeRO-3 hooked the modules: its hooks made operations, with one GPU as with many."""
    return any(_HOOKS in line for line in program.trace.header.lines)


def _hooks(program: Program, profile: Profile, backward: npt.NDArray[np.bool_]) -> Floats:
    forward = program.phase == PHASE["forward"]
    there, here = int(program.entered[forward].sum()), int(program.entered[backward].sum())
    recomputed = program.trace.header.job.get("recipe", {}).get("recompute") == "full"
    again = min(there / here, 1.0) if recomputed and here else 0.0
    return launch.hook_seconds(profile, program.entered, backward, again)


def _call_time(host: Host, profile: Profile) -> float:
    """What a call takes over its price in `profile`: as said, or of a plain server beside the host of a profile that ships."""
    if host.call_time is not None:
        return host.call_time
    return CALIBRATED if profile.path else PLAIN_SERVER
