"""One sweep's hold on its GPUs: locked, idle, watched over; and within it, points at one memory clock each.

    with Session(driver, uuids, load, consent, folder) as session:
        point = session.point(1_593_000_000, body)

A point switches, settles, verifies by reading back under load, watches while `body` runs, and gives the clocks back: when it ends, when it
raises, on SIGTERM, SIGINT and SIGHUP. Where the process itself is killed, its watchdog does (`membound.measure.clocks.watchdog`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Self, TypeVar

from membound.errors import MemboundError, RecordError
from membound.measure.clocks import guard, journal, lock, restoring, signals, state, verifying
from membound.measure.clocks.calls import Way, megahertz
from membound.measure.clocks.checks import clean, idle, whole
from membound.measure.clocks.consent import Consent, Settable, grant
from membound.measure.clocks.driver import Reading, SwitchType
from membound.measure.clocks.journal import Entry
from membound.measure.clocks.refusals import ClockError, DeferredError, NoPermissionError, NotSwitchableError, NotVerifiedError
from membound.measure.clocks.verifying import Load, Watched
from membound.measure.clocks.ways import attempts, check

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """How long a session waits, s. All chosen; see `membound.measure.clocks.verifying` for the reasons."""

    settle: float = 0.1
    """After a switch, where the driver wants no longer: NVML renews most readings within it."""
    patience: float = verifying.PATIENCE
    """For a load to arrive and a clock to follow, and for the last program to leave the GPU."""
    period: float = verifying.PERIOD
    """Between two looks at a running measurement."""
    look: float = verifying.LOOK
    """Between two readings under load that must agree."""


@dataclass(frozen=True)
class Point(Generic[T]):
    """What was measured at one memory clock, and at which clocks, Hz."""

    memory: int
    way: str
    """How it was switched; empty where the GPUs run at this clock by themselves."""
    verified: Mapping[str, Reading]
    """Clocks read back under load, before the measurement, by UUID."""
    watched: Mapping[str, Watched]
    """Clocks while it ran, by UUID."""
    restored: tuple[str, ...]
    """How each GPU's clocks were given back."""
    result: T
    """What the body returned."""


class Session:
    """The hold on `uuids`. `load` keeps them busy for a read-back; `folder` holds locks and journals."""

    def __init__(
        self,
        driver: Settable,
        uuids: Sequence[str],
        load: Load,
        consent: Consent,
        folder: Path | None = None,
        timing: Timing | None = None,
    ) -> None:
        self._driver = driver
        self._uuids = tuple(uuids)
        self._load = load
        self._consent = consent
        self._folder = folder or state.folder()
        self._timing = timing or Timing()
        self._entries: dict[str, Entry] = {}
        self._idle: Mapping[str, Reading] = {}
        self._loaded: Mapping[str, Reading] = {}

    def __enter__(self) -> Self:
        """Raises `BusyError`, `LeftOverError`, `NotSwitchableError`, `NotVerifiedError`. Nothing is changed, here or then."""
        with ExitStack() as stack:
            whole(self._driver, self._uuids)
            locks = stack.enter_context(lock.held(self._folder, self._uuids))
            clean(self._folder, self._uuids)
            idle(self._driver, self._uuids, 0)
            self._idle = {uuid: self._driver.read(uuid) for uuid in self._uuids}
            self._loaded = verifying.under_load(self._driver, self._uuids, self._load, self._timing.patience, self._timing.look)
            stack.enter_context(signals.raising())
            self._guard = stack.enter_context(guard.watched(self._folder, self._uuids, locks))
            self._held = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with signals.shielded():
            try:
                # A signal may have come between a body's end and its restoring.
                self._restore()
            finally:
                self._held.close()

    @property
    def watchdog(self) -> int:
        """Process id of the watchdog."""
        return self._guard.pid

    @property
    def unswitched(self) -> Mapping[str, Reading]:
        """What each GPU runs at under load by itself."""
        return self._loaded

    def point(self, memory: int, body: Callable[[], T], core: int | None = None) -> Point[T]:
        """Run `body` with the memory clock of all GPUs at `memory`, Hz, and their core clock held at `core` where one is given.

        Raises `InputError` for a clock that is not supported, and the `ClockError` that spoils the point; the clocks are given back first.
        """
        clean(self._folder, self._uuids)
        idle(self._driver, self._uuids, self._timing.patience)
        if core is None and all(reading.holds(memory) for reading in self._loaded.values()):
            for uuid in self._uuids:
                check(self._driver, uuid, memory, None)
            watched, result = self._watched(memory, body)
            return Point(memory, "", self._loaded, watched, (), result)
        failed: ClockError | None = None
        for attempt in attempts(self._driver, self._uuids, memory, core):
            try:
                try:
                    verified = self._switch(memory, attempt)
                except (NotVerifiedError, NotSwitchableError) as error:
                    failed = error
                    continue
                watched, result = self._watched(memory, body)
            finally:
                with signals.shielded():
                    restored = self._restore()
            return Point(memory, attempt[0].name, verified, watched, restored, result)
        assert failed is not None
        raise self._deferred(failed)

    def _deferred(self, failed: ClockError) -> ClockError:
        """`failed`, or that a reload is what is left to try."""
        if all(self._driver.switching(uuid).type is SwitchType.DEFERRED for uuid in self._uuids):
            return DeferredError(f"the driver switches the memory clock only as it loads ({failed})")
        return failed

    def _switch(self, memory: int, attempt: Sequence[Way]) -> Mapping[str, Reading]:
        """Make the calls, wait, and read back under load. Whatever happens, `_restore` is to follow."""
        self._guard.check()
        controls = grant(self._driver, self._consent)
        self._write([self._entry(uuid, memory, way) for uuid, way in zip(self._uuids, attempt, strict=True)])
        # The last switch may be as young as can be: the previous point's clocks were given back just now.
        interval = max(entry.interval for entry in self._entries.values())
        time.sleep(interval)
        for call in (call for way in attempt for call in way.do):
            answer = controls.perform(call)
            if answer.forbidden:
                raise NoPermissionError(str(call))
            if answer.refusal:
                raise NotSwitchableError(f"{call}: {answer.refusal}")
        time.sleep(max(self._timing.settle, interval))
        verified = verifying.under_load(self._driver, self._uuids, self._load, self._timing.patience, self._timing.look)
        for uuid, reading in verified.items():
            if not reading.holds(memory):
                found = megahertz(reading.memory)
                raise NotVerifiedError(f"{uuid}: set to {megahertz(memory)} ({attempt[0].name}), and accepted, it reads {found} under load")
        return verified

    def _entry(self, uuid: str, memory: int, way: Way) -> Entry:
        interval = self._driver.switching(uuid).interval
        before = self._idle[uuid], self._loaded[uuid]
        return Entry(uuid, self._driver.address, self._consent.words, state.boot(), time.time(), *before, memory, interval, way.do, way.undo)

    def _write(self, entries: Sequence[Entry]) -> None:
        """All journals, before any change; none of them where one cannot be written."""
        try:
            for entry in entries:
                journal.write(self._folder, entry)
        except BaseException:
            for entry in entries:
                journal.path(self._folder, entry.uuid).unlink(missing_ok=True)
            raise
        self._entries = {entry.uuid: entry for entry in entries}

    def _watched(self, memory: int, body: Callable[[], T]) -> tuple[Mapping[str, Watched], T]:
        with verifying.watching(self._driver, self._uuids, memory, self._timing.period) as seen:
            result = body()
        for uuid, watched in seen.items():
            watched.check(uuid, memory)
        return seen, result

    def _restore(self) -> tuple[str, ...]:
        """Give back all that was changed. Raises the first failure, after every GPU was tried."""
        failed: list[MemboundError] = []
        notes = []
        while self._entries:
            uuid = next(iter(self._entries))
            entry = self._entries.pop(uuid)
            try:
                notes.append(f"{uuid}: {self._restore_one(entry)}")
            except MemboundError as error:
                # Its journal stays, and the watchdog tries again as the session ends.
                failed.append(error)
        if failed:
            raise failed[0]
        return tuple(notes)

    def _restore_one(self, entry: Entry) -> str:
        try:
            return restoring.restore(self._folder, entry.uuid, "this session", self._driver).text
        except RecordError:
            # Damaged since; what it said is still known here.
            journal.write(self._folder, entry)
            return restoring.restore(self._folder, entry.uuid, "this session", self._driver).text
