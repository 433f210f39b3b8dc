"""Deferred switching: a plan on disk for a person to walk, since the driver takes a memory clock only as it loads. No step sets anything here.

    measure what runs unswitched -> for each clock: lock deferred, reload, `membound sweep --resume PLAN` -> reset deferred, reload, resume

`advance` reads the clock back under load and does what the plan's place allows: it measures, moves on, or says again what is to be done.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from membound.errors import RecordError
from membound.measure.clocks import state, verifying
from membound.measure.clocks.calls import megahertz
from membound.measure.clocks.checks import idle
from membound.measure.clocks.driver import Driver
from membound.measure.clocks.verifying import Load

SCHEMA: Final = 1
PATTERN: Final = "plan-*.json"
"""Names of plans that membound itself names, in its state folder."""


@dataclass(frozen=True)
class Plan:
    """Where a deferred sweep stands. Clocks in Hz. `payload` is the caller's: what is measured and how to go on with it."""

    driver: str
    uuids: tuple[str, ...]
    unswitched: int
    """Memory clock under load before the first step."""
    clocks: tuple[int, ...]
    """Clocks to be measured, in order; the unswitched one needs no reload and is not among them."""
    done: tuple[int, ...] = ()
    """Those that are measured."""
    ended: bool = False
    """Whether the unswitched clock was read again after the last reset."""
    payload: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def next(self) -> int | None:
        """The clock that is to be measured next; None when only the reset is left."""
        left = [clock for clock in self.clocks if clock not in self.done]
        return left[0] if left else None

    @property
    def expected(self) -> int:
        """The memory clock that the next `advance` must read under load."""
        return self.unswitched if self.next is None else self.next


def write(path: Path, plan: Plan) -> None:
    """Put `plan` on the disk, whole. Raises `StorageError`."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            json.dump({"schema": SCHEMA, **dataclasses.asdict(plan)}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise state.refused(path, error) from None


def read(path: Path) -> Plan:
    """The plan at `path`. Raises `RecordError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        for name in ("uuids", "clocks", "done"):
            document[name] = tuple(document[name])
        plan = Plan(**document)
        if not plan.uuids or not all(isinstance(clock, int) for clock in (plan.unswitched, *plan.clocks, *plan.done)):
            raise ValueError("GPUs or clocks are not what they must be")
        return plan
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path}: not a readable plan ({error})") from None


def steps(plan: Plan, path: Path) -> tuple[str, ...]:
    """All that is still to be done, in words and commands."""
    lines: list[str] = []
    for clock in plan.clocks:
        if clock not in plan.done:
            lines.append(f"lock the memory clock to {megahertz(clock)}, for when the driver loads next (as root):")
            lines += [f"    nvidia-smi -i {uuid} --lock-memory-clocks-deferred={clock // 1_000_000}" for uuid in plan.uuids]
            # nvidia-smi ends well where it refuses: its words count, not its status.
            lines.append("    if it prints 'not supported' or 'permission', nothing was done: stop here")
            lines += [
                *_RELOAD,
                f"    membound sweep --resume {path}",
                f"    it reads the clock back under load, and measures if it is {megahertz(clock)}",
            ]
    if not plan.ended:
        lines.append("take the lock away again (as root). Do not skip this: some drivers keep it across reboots:")
        lines += [f"    nvidia-smi -i {uuid} --reset-memory-clocks-deferred" for uuid in plan.uuids]
        lines += [*_RELOAD, f"    membound sweep --resume {path}", f"    it verifies that {megahertz(plan.unswitched)} is back"]
    return tuple(lines)


# nvidia-smi --help: the deferred lock is applied as the GPU is next initialised, which unloading and reloading the kernel module guarantees;
# help texts of other versions say: after a GPU reset, and that it persists across reboots.
_RELOAD: Final = (
    "reboot; or end all that uses the GPUs (services such as nvidia-persistenced, nvidia-fabricmanager and DCGM too) and load the driver anew:",
    "    modprobe -r nvidia_uvm nvidia_drm nvidia_modeset nvidia && modprobe nvidia",
)


@dataclass(frozen=True)
class Advance:
    """What one resumption found and did."""

    did: Literal["measured", "verified", "nothing"]
    clock: int
    """The clock in question, Hz."""
    plan: Plan
    text: str


def advance(path: Path, driver: Driver, load: Load, measure: Callable[[int], None], patience: float = verifying.PATIENCE) -> Advance:
    """Go on with the plan at `path`: read the clock back under load and, where it is the one that the plan waits for, `measure` at it.

    A measurement that raises, or that heat spoils, leaves the plan where it was. Raises the `ClockError` of a spoiled measurement.
    """
    plan = read(path)
    if plan.ended:
        return Advance("nothing", plan.unswitched, plan, "this plan is at its end: nothing is left to do")
    idle(driver, plan.uuids, 0)
    found = verifying.under_load(driver, plan.uuids, load, patience)
    wrong = [f"{uuid} reads {megahertz(reading.memory)}" for uuid, reading in found.items() if not reading.holds(plan.expected)]
    if wrong:
        return Advance(
            "nothing", plan.expected, plan, f"the plan waits for {megahertz(plan.expected)}, but {', '.join(wrong)}: do its next step first"
        )
    if plan.next is None:
        after = dataclasses.replace(plan, ended=True)
        write(path, after)
        return Advance("verified", plan.unswitched, after, f"{megahertz(plan.unswitched)} is back: the plan is at its end")
    _measure(driver, plan.uuids, plan.next, measure)
    after = dataclasses.replace(plan, done=(*plan.done, plan.next))
    write(path, after)
    return Advance("measured", plan.next, after, f"measured at {megahertz(plan.next)}")


def _measure(driver: Driver, uuids: Sequence[str], memory: int, measure: Callable[[int], None]) -> None:
    with verifying.watching(driver, uuids, memory) as seen:
        measure(memory)
    for uuid, watched in seen.items():
        watched.check(uuid, memory)
