"""What must hold before a clock is switched: whole GPUs, nobody's change left over, nobody at work on them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from membound.errors import InputError
from membound.measure.clocks import journal
from membound.measure.clocks.calls import megahertz
from membound.measure.clocks.driver import Driver
from membound.measure.clocks.refusals import BusyError, LeftOverError, NotSwitchableError

_LOOK: Final = 0.1
"""Time between two looks, s. Chosen: listing processes is one of NVML's slow calls (4.5 ms in flightlessmango/MangoHud#2104)."""


def whole(driver: Driver, uuids: Sequence[str]) -> None:
    """Raise `InputError` for no GPU or one named twice, `NotSwitchableError` for one that is not there or is split."""
    if not uuids or len(set(uuids)) < len(uuids):
        raise InputError("gpus", ", ".join(uuids), "name each GPU once, by UUID")
    here = {gpu.uuid: gpu for gpu in driver.gpus()}
    for uuid in uuids:
        if uuid not in here:
            raise NotSwitchableError(f"{uuid}: no such GPU here (there are {', '.join(here) or 'none'})")
        if here[uuid].split:
            raise NotSwitchableError(f"{uuid}: split into instances (MIG), which share one memory clock: it cannot be switched")


def clean(folder: Path, uuids: Sequence[str]) -> None:
    """Raise `LeftOverError` where a journal says that a change is not undone, and `RecordError` where one cannot be read."""
    for uuid in uuids:
        entry = journal.read(folder, uuid)
        if entry is not None and entry.state == "changing":
            raise LeftOverError(f"{uuid}: an earlier session's change to {megahertz(entry.memory)} is not undone: run `membound restore` first")


def idle(driver: Driver, uuids: Sequence[str], patience: float) -> None:
    """Raise `BusyError` where a program still uses a GPU after `patience`, s: the driver lists one a moment longer than it lives."""
    end = time.monotonic() + patience
    for uuid in uuids:
        while found := driver.processes(uuid):
            if time.monotonic() >= end:
                raise BusyError(f"{uuid}: in use by process {', '.join(map(str, found))}: its clock would change under it; end it first")
            time.sleep(_LOOK)
