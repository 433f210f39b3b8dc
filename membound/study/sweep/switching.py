"""A measured sweep over the memory clock: for each clock switch, verify, measure, give back. What `membound sweep --measure` calls.

    consent = Consent.from_options(measure, over)                      the option itself; nothing else makes one
    sweep(driver, uuids, clocks(over), load, measure, consent)         -> points, and why there are not all
    rehearse(driver, uuids, clocks(over), folder)                      the dry run: every call, and none made
    resume(path, load, measure)                                        where the driver must be reloaded for each clock

Where clocks cannot be switched, `Sweep.refused` says why in one line, and a predicted sweep is what is left.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from membound import units
from membound.errors import InputError
from membound.measure.clocks import plan, state
from membound.measure.clocks.consent import PATH, Consent, Settable
from membound.measure.clocks.opening import open_driver
from membound.measure.clocks.plan import Advance, Plan
from membound.measure.clocks.refusals import DeferredError, NoPermissionError, NotSwitchableError, NotVerifiedError, ThrottledError
from membound.measure.clocks.rehearsal import rehearse
from membound.measure.clocks.session import Point, Session, Timing
from membound.measure.clocks.verifying import PATIENCE, Load
from membound.measure.clocks.ways import check

__all__ = ["Failed", "Options", "Sweep", "clocks", "rehearse", "resume", "sweep"]

T = TypeVar("T")


@dataclass(frozen=True)
class Failed:
    """A clock, Hz, at which no measurement counts, and why."""

    memory: int
    reason: str


@dataclass(frozen=True)
class Sweep(Generic[T]):
    """What a measured sweep came to."""

    points: tuple[Point[T] | Failed, ...]
    refused: str | None = None
    """Why the clocks that have no point cannot be switched; None where each has one."""
    plan: Path | None = None
    """The plan for clocks that the driver takes only as it loads."""
    steps: tuple[str, ...] = ()
    """That plan's steps, in words and commands."""


@dataclass(frozen=True)
class Options:
    """What may differ from sweep to sweep."""

    folder: Path | None = None
    """For locks, journals and plans; None: the user's state folder."""
    core: int | None = None
    """Core clock to hold, Hz; None: the core clock is left to the driver."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """What a plan must keep for the sweep to be resumed; plain values."""
    timing: Timing = field(default_factory=Timing)
    """How long to wait for what."""


def clocks(over: str) -> tuple[int, ...]:
    """The memory clocks in 'machine.gpu.hbm.clock=1593MHz,2619MHz', Hz. Raises `InputError`."""
    path, _, listed = over.partition("=")
    if path.strip() != PATH or not listed.strip(" ,"):
        raise InputError("--over", over, f"write {PATH}=1593MHz,2619MHz")
    found = tuple(round(units.parse(text, "Hz", PATH)) for text in listed.split(",") if text.strip())
    if len(set(found)) < len(found):
        raise InputError("--over", over, "name each clock once")
    return found


def sweep(
    driver: Settable,
    uuids: Sequence[str],
    over: Sequence[int],
    load: Load,
    measure: Callable[[int], T],
    consent: Consent,
    options: Options | None = None,
) -> Sweep[T]:
    """Call `measure` at each memory clock of `over`, Hz, on the GPUs `uuids`, all of which run the job.

    A point that heat spoils, or whose clock is not read back, is `Failed`, and the sweep goes on. Raises what has another cure than a
    predicted sweep: `InputError`, `BusyError`, `LeftOverError`, `StorageError`, `NotRestoredError`, `GpuLostError`, and what `measure` raises.
    """
    options = options or Options()
    for uuid in uuids:
        for memory in over:
            check(driver, uuid, memory, options.core)
    points: list[Point[T] | Failed] = []
    try:
        with Session(driver, uuids, load, consent, options.folder, options.timing) as session:
            for memory in over:
                try:
                    points.append(_point(session, memory, measure, options.core))
                except DeferredError as error:
                    # What needs no reload is measured first.
                    own = session.unswitched[uuids[0]]
                    points += [_point(session, each, measure, None) for each in _after(over, memory) if own.holds(each)]
                    left = tuple(each for each in (memory, *_after(over, memory)) if not own.holds(each))
                    made = Plan(driver.address, tuple(uuids), own.memory, left, payload=options.payload)
                    return _planned(made, points, str(error), options)
    except (NotSwitchableError, NoPermissionError) as error:
        return Sweep(tuple(points), str(error))
    return Sweep(tuple(points))


def _point(session: Session, memory: int, measure: Callable[[int], T], core: int | None) -> Point[T] | Failed:
    try:
        return session.point(memory, functools.partial(measure, memory), core)
    except (ThrottledError, NotVerifiedError) as error:
        return Failed(memory, str(error))


def _after(over: Sequence[int], memory: int) -> Sequence[int]:
    return over[over.index(memory) + 1 :]


def _planned(made: Plan, points: Sequence[Point[T] | Failed], why: str, options: Options) -> Sweep[T]:
    path = (options.folder or state.folder()) / time.strftime("plan-%Y%m%d-%H%M%S.json")
    plan.write(path, made)
    return Sweep(tuple(points), why, path, plan.steps(made, path))


def resume(path: Path, load: Load, measure: Callable[[int], None], patience: float = PATIENCE) -> Advance:
    """Go on with the plan at `path`; its `payload` is what the sweep gave it. See `membound.measure.clocks.plan.advance`."""
    return plan.advance(path, open_driver(plan.read(path).driver), load, measure, patience)
