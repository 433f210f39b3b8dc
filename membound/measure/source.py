"""Which machine answers the sensors: the one at hand, or a recorded one, with faults or without."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

FaultKind = Literal["lost", "no_permission", "not_supported", "sentinel", "stuck", "slow", "busy", "crash"]

REAL: Final = "real"


@dataclass(frozen=True)
class Fault:
    """A simulated failure of a recorded machine.

    `lost`, `no_permission`, `not_supported`: calls are refused so. `sentinel`: they answer with the number that stands for "not available".
    `stuck`: they repeat their last answer. `slow`: each waits for `cost` s. `busy`: each takes `cost` s of a core.
    `crash`: the sampler's process ends at once.
    """

    kind: FaultKind
    call: str = "*"
    """Name of the call (see `membound.measure.sensors.nvml`), or "*" for all."""
    gpu: int | None = None
    """Number of the GPU; None: all."""
    begin: float = 0.0
    """s since the machine was opened."""
    end: float = float("inf")
    """s since the machine was opened."""
    cost: float = 0.0
    """s that a call takes, of the kinds `slow` and `busy`."""


@dataclass(frozen=True)
class Source:
    """Which machine answers. Picklable, and small enough to be passed on a command line."""

    machine: str = REAL
    """`real`, the name of a recorded machine, or the folder or file of one."""
    gpus: int | None = None
    """A recorded machine of one GPU can stand for several alike; None: as many as were recorded."""
    faults: tuple[Fault, ...] = ()

    @property
    def real(self) -> bool:
        """Whether it is this machine itself."""
        return self.machine == REAL

    def document(self) -> dict[str, Any]:
        """As JSON has it; `end` of a fault that never ends is null."""
        faults = [{**dataclasses.asdict(fault), "end": None if fault.end == float("inf") else fault.end} for fault in self.faults]
        return {"machine": self.machine, "gpus": self.gpus, "faults": faults}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Source:
        """The Source that `document` describes."""
        faults = tuple(Fault(**{**fault, "end": float("inf") if fault["end"] is None else fault["end"]}) for fault in document["faults"])
        return cls(document["machine"], document["gpus"], faults)
