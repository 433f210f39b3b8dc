"""The setting calls that a switch and its undoing make, as values: what a dry run prints is what a session performs and a journal keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, Self, get_args

Name = Literal["lock_memory", "reset_memory", "lock_core", "reset_core", "set_applications", "reset_applications"]

# Names and arguments of the functions: pynvml.py of nvidia-ml-py 13.615.71.
_FUNCTIONS: Final[dict[Name, str]] = {
    "lock_memory": "nvmlDeviceSetMemoryLockedClocks",
    "reset_memory": "nvmlDeviceResetMemoryLockedClocks",
    "lock_core": "nvmlDeviceSetGpuLockedClocks",
    "reset_core": "nvmlDeviceResetGpuLockedClocks",
    "set_applications": "nvmlDeviceSetApplicationsClocks",
    "reset_applications": "nvmlDeviceResetApplicationsClocks",
}


@dataclass(frozen=True)
class Call:
    """One setting call on the GPU `uuid`, with clocks in Hz: a lock takes one, applications clocks take memory and core."""

    name: Name
    uuid: str
    clocks: tuple[int, ...] = ()

    def __str__(self) -> str:
        # The driver locks to a range; ours holds one clock.
        shown = self.clocks * 2 if self.name in {"lock_memory", "lock_core"} else self.clocks
        return f"{_FUNCTIONS[self.name]}({', '.join([self.uuid, *map(megahertz, shown)])})"

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"name": self.name, "uuid": self.uuid, "clocks": list(self.clocks)}

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self:
        """The call that `document` tells. Raises `ValueError`, `KeyError`, `TypeError` for anything else."""
        name: Name = document["name"]
        if name not in get_args(Name):
            raise ValueError(f"call {name!r}")
        return cls(name, str(document["uuid"]), tuple(int(clock) for clock in document["clocks"]))


@dataclass(frozen=True)
class Answer:
    """What a driver said to a call. It proves nothing by itself: success is the clock that is read back."""

    status: int
    text: str = ""

    @property
    def refusal(self) -> str | None:
        """Why the call was refused, as far as the answer tells: by its status or, in spite of a good one, by its words."""
        words = self.text.lower()
        # nvidia-smi prints "not supported" for a memory lock on Hopper and ends well: alibaba/atrex-bench, tests of its clock lock.
        if self.status != 0 or any(sign in words for sign in ("not supported", "permission", "deprecated", "failed")):
            return self.text or f"status {self.status}"
        return None

    @property
    def forbidden(self) -> bool:
        """Whether the driver refused for want of permission."""
        return self.refusal is not None and "permission" in self.text.lower()


@dataclass(frozen=True)
class Way:
    """One way to switch: the calls that do it, and those that undo it."""

    name: Literal["locked clock", "applications clock"]
    do: tuple[Call, ...]
    undo: tuple[Call, ...]


def locked(uuid: str, memory: int) -> Way:
    """Lock the memory clock to `memory`, Hz. The driver has no call that reads a lock, so undoing resets it."""
    return Way("locked clock", (Call("lock_memory", uuid, (memory,)),), (Call("reset_memory", uuid),))


def applications(uuid: str, memory: int, core: int, before: tuple[int, int]) -> Way:
    """Set the applications clocks to `memory` and `core`, Hz, and back to what they were `before`."""
    return Way("applications clock", (Call("set_applications", uuid, (memory, core)),), (Call("set_applications", uuid, before),))


def holding_core(way: Way, uuid: str, core: int) -> Way:
    """`way`, with the core clock locked to `core`, Hz, too."""
    return Way(way.name, (*way.do, Call("lock_core", uuid, (core,))), (Call("reset_core", uuid), *way.undo))


def megahertz(clock: int) -> str:
    """`clock`, Hz, as drivers and data sheets name it."""
    return f"{clock / 1e6:g} MHz"
