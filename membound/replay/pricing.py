"""What each item of a Workload costs on a Machine, split over the resources that it hangs on."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from membound.cost import collectives, launch, nvme, pcie
from membound.cost.ddr import work_seconds
from membound.cost.dispatch import dispatched
from membound.cost.laws import LAWS
from membound.cost.profile import Profile, profile_of
from membound.cost.resources import ROW, ROWS, Spent
from membound.replay.operands import Operands
from membound.replay.program import Program
from membound.replay.workload import Workload
from membound.spec.host import CALIBRATED, PLAIN_SERVER, Host
from membound.spec.machine import Machine
from membound.trace.schema import KIND, PHASE, PLACE

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
    dimm_bytes: Floats
    """Bytes that each item moves over the DIMMs; [n, K]."""
    unknown: Floats
    """Seconds of each entry that no law knows; [entries, K]."""
    slower: Floats | None = None
    """Factor on each item's duration for what runs beside it; [n, K], None for none."""

    def of(self, first: int, after: int) -> Spent:
        """Durations of the items from `first` up to `after`, kernels one and all; [items, ROWS, K]."""
        found = self.by_entry[self.index[first:after]]
        return found if self.slower is None else found * self.slower[first:after, None]

    @functools.cached_property
    def by_entry(self) -> Spent:
        """The table with its entries first; [entries, ROWS, K]."""
        return np.ascontiguousarray(np.moveaxis(self.table, 1, 0))


def priced(work: Workload, machine: Machine, ranks_on_node: int) -> Prices:
    """The durations of `work` on `machine`, `ranks_on_node` of whose GPUs run alike. Raises `InputError` where the machine lacks what it takes."""
    program, count = work.program, len(work.lengths)
    others = np.flatnonzero(work.index < 0)
    table = np.zeros((ROWS, work.distinct + len(others), count))
    band = np.full(table.shape[1], _LINK_BAND)
    unknown = np.zeros(table.shape[1:])
    for group in work.groups:
        law = LAWS[group.law]
        found = law.price(dispatched(group.kernels, machine.gpu) if work.cudnn else group.kernels, machine.gpu)
        shape = (count, len(group.members))
        seconds = found.seconds.reshape(shape).T
        table[0, group.members] = seconds
        for name, part in (("compute", found.compute), ("hbm", found.memory), ("fixed", found.fixed)):
            table[ROW[name], group.members] = seconds * part.reshape(shape).T
        band[group.members] = found.band.reshape(shape).T.max(axis=1)
        if law is LAWS[-1]:
            unknown[group.members] = seconds
    index = work.index.copy()
    index[others] = work.distinct + np.arange(len(others))
    _links(table[:, work.distinct :], work, others, machine, ranks_on_node)
    profile = profile_of(machine.gpu)
    return Prices(table, index, _launches(program, profile) * _call_time(machine.host, profile), band, _dimm_bytes(work), unknown)


# Links and host work: see the laws' own evidence (docs/laws).
_LINK_BAND: Final = 0.15


def _links(table: Spent, work: Workload, items: Column, machine: Machine, ranks_on_node: int) -> None:
    """Prices of copies, collectives and host work, into `table` [ROWS, items, K]."""
    program = work.program
    kind = program.kind[items]
    names = program.trace.header.ops
    ops = np.array([names[code] for code in program.op[items]])
    host_end = _pinned(program.operands, len(program))[items]
    host_bytes = _host_bytes(program.operands, len(program))[items]
    locked_bytes = _host_bytes(program.operands, len(program), _LOCKED)[items]
    locked = _locked(program.operands)
    for k in range(len(work.lengths)):
        moved = work.moved[items, k]
        chosen = np.isin(kind, [KIND["copy_h2d"], KIND["copy_d2h"]])
        table[:, chosen, k] = pcie.copy_seconds(moved[chosen], host_end[chosen], machine, ranks_on_node, locked)
        chosen = kind == KIND["host"]
        drives = np.char.startswith(ops, "nvme.") if len(ops) else np.zeros(0, np.bool_)
        on_drives, on_cores = chosen & drives & (moved > 0), chosen & ~drives
        table[:, on_cores, k] = work_seconds(host_bytes[on_cores], machine, ranks_on_node, locked_bytes[on_cores], locked)
        if on_drives.any():
            table[:, on_drives, k] = nvme.file_seconds(moved[on_drives], ops[on_drives] == "nvme.write", machine, ranks_on_node)
        chosen = kind == KIND["collective"]
        if chosen.any():
            table[:, chosen, k] = collectives.spent(list(ops[chosen]), moved[chosen], program.ranks[items][chosen], machine)


def _pinned(operands: Operands, items: int) -> npt.NDArray[np.bool_]:
    """Whether all of an item's operands on the host are page-locked; [n]."""
    place = operands.place[operands.storage]
    pageable = np.bincount(operands.item, place == PLACE["host"], items)
    return np.asarray(pageable == 0, np.bool_)


_ON_HOST: Final = (PLACE["host"], PLACE["pinned"])
_LOCKED: Final = (PLACE["pinned"],)


def _host_bytes(operands: Operands, items: int, places: tuple[int, ...] = _ON_HOST) -> Floats:
    """Bytes that an item reads and writes of host memory; [n]."""
    on_host = np.isin(operands.place[operands.storage], places)
    return np.bincount(operands.item, np.where(on_host, operands.nbytes[0], 0), items).astype(np.float64)


def _locked(operands: Operands) -> float:
    """Bytes of all page-locked storages that the step touches."""
    touched = np.unique(operands.storage)
    return float(operands.size[touched][operands.place[touched] == PLACE["pinned"]].sum())


def _dimm_bytes(work: Workload) -> Floats:
    program = work.program
    copies = np.isin(program.kind, [KIND["copy_h2d"], KIND["copy_d2h"]])
    host = np.where(program.kind == KIND["host"], _host_bytes(program.operands, len(program)), 0.0)
    return np.where(copies[:, None], work.moved, host[:, None])


_CALLS: Final = {
    "kernel": "kernel", "copy_h2d": "copy", "copy_d2h": "copy", "collective": "collective", "host": "host", "record": "event", "wait": "event",
    "sync": "sync",
}  # fmt: skip


def _launches(program: Program, profile: Profile) -> Floats:
    calls = np.zeros(max(KIND.values()) + 1, np.int64)
    for kind, call in _CALLS.items():
        calls[KIND[kind]] = launch.KINDS.index(call)
    engine = program.trace.header.job.get("recipe", {}).get("engine")
    collective = (program.kind == KIND["collective"]) & (program.phase != PHASE["optimizer"])
    prepared = {"fsdp": "gather", "deepspeed": "reduce"}.get(str(engine), "collective")
    own = np.where(collective, launch.KINDS.index(prepared), calls[program.kind])
    hooked = engine == "deepspeed" and bool((collective & (program.phase == PHASE["forward"])).any())
    backward = program.phase == PHASE["backward"]
    model = backward | (program.phase == PHASE["forward"])
    return launch.launch_seconds(profile, own, model, backward, program.views, program.modules, program.tensors, hooked)


def _call_time(host: Host, profile: Profile) -> float:
    """What a call takes over its price in `profile`: as said, or of a plain server beside the host of a profile that ships."""
    if host.call_time is not None:
        return host.call_time
    return CALIBRATED if profile.path else PLAIN_SERVER
