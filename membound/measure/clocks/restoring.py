"""Give one GPU's clocks back as its journal says, and read back that they are."""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from membound.errors import StorageError
from membound.measure.clocks import journal, state
from membound.measure.clocks.calls import Call, megahertz
from membound.measure.clocks.consent import Consent, Settable, grant
from membound.measure.clocks.driver import Reading
from membound.measure.clocks.journal import Entry
from membound.measure.clocks.opening import open_driver
from membound.measure.clocks.reasons import IDLE
from membound.measure.clocks.refusals import NotRestoredError

_PATIENCE: Final = 1.0
"""How long a clock may take to come back, s. Chosen: ten times the 100 ms in which NVML renews its slowest usual reading (NVIDIA/DCGM#310)."""
_LOOK: Final = 0.02
"""Time between two looks, s."""


@dataclass(frozen=True)
class Outcome:
    """What was found of one GPU, and what was done. `calls` were made."""

    uuid: str
    text: str
    calls: tuple[Call, ...] = ()


def restore(folder: Path, uuid: str, by: str, driver: Settable | None = None) -> Outcome:
    """Undo what the journal of `uuid` in `folder` says was changed; `by` says who does it. To be called with the GPU's lock held.

    Raises `NotRestoredError` and `GpuLostError`, with the journal left for another try, and `RecordError` for a damaged journal.
    """
    entry = journal.read(folder, uuid)
    if entry is None:
        return Outcome(uuid, "no journal: nothing was changed")
    if entry.state == "restored":
        return Outcome(uuid, f"nothing to do: {entry.note}")
    driver = driver or open_driver(entry.driver)
    if entry.boot != state.boot() and _back(driver.read(uuid), entry):
        note = f"the system was started anew since the change, which gave {megahertz(driver.read(uuid).memory)} back: nothing was set"
        _mark(folder, entry.restored(note))
        return Outcome(uuid, note)
    return _undo(folder, entry, driver, by)


def _undo(folder: Path, entry: Entry, driver: Settable, by: str) -> Outcome:
    controls = grant(driver, Consent(entry.consent))
    # The change may be as young as can be.
    time.sleep(entry.interval)
    refused = [f"{call}: {answer.refusal}" for call in entry.undo if (answer := controls.perform(call)).refusal]
    reading = _wait(driver, entry)
    # Where the clock was changed to what it is by itself, reading it back tells nothing of a lock.
    blind = entry.idle.holds(entry.memory) or entry.loaded.holds(entry.memory)
    if not _back(reading, entry) or (blind and refused):
        why = f"{entry.uuid}: reads {megahertz(reading.memory)} after {len(entry.undo)} calls{'; ' if refused else ''}{'; '.join(refused)}"
        with suppress(StorageError):
            journal.write(folder, dataclasses.replace(entry, note=f"{by}: {why}"))
        raise NotRestoredError(f"{why}: clocks may still be changed: `membound restore` tries again, as the user who changed them")
    note = f"{megahertz(entry.memory)} given back by {by}, reads {megahertz(reading.memory)}{'; refused: ' if refused else ''}{'; '.join(refused)}"
    _mark(folder, entry.restored(note))
    return Outcome(entry.uuid, note, entry.undo)


def _wait(driver: Settable, entry: Entry) -> Reading:
    """The clocks, once they are back or patience is at its end."""
    end = time.monotonic() + max(_PATIENCE, 2 * entry.interval)
    while not _back(reading := driver.read(entry.uuid), entry) and time.monotonic() < end:
        time.sleep(_LOOK)
    return reading


def _back(reading: Reading, entry: Entry) -> bool:
    """Whether `reading` is one of a GPU whose clocks are as before the change."""
    held = [call.clocks[0] for call in entry.do if call.name == "lock_core"]
    if reading.core in held and reading.core not in {entry.idle.core, entry.loaded.core}:
        return False
    if reading.holds(entry.idle.memory) or reading.holds(entry.loaded.memory):
        return True
    # An idle GPU may be on its way down through clocks of its own.
    return bool(reading.reasons & IDLE) and not reading.holds(entry.memory)


def _mark(folder: Path, entry: Entry) -> None:
    try:
        journal.write(folder, entry)
    except StorageError:
        # A full disk still lets a file go, and no journal says the same: nothing is changed.
        with suppress(OSError):
            journal.path(folder, entry.uuid).unlink()
