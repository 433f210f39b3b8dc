"""A dry run: all that a measured sweep would do, in order, from what the driver says. Reads only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from membound.measure.clocks import journal
from membound.measure.clocks.calls import megahertz
from membound.measure.clocks.checks import whole
from membound.measure.clocks.driver import Driver, SwitchType
from membound.measure.clocks.refusals import DeferredError
from membound.measure.clocks.ways import attempts, check


def rehearse(driver: Driver, uuids: Sequence[str], clocks: Sequence[int], folder: Path, core: int | None = None) -> tuple[str, ...]:
    """The steps of a sweep of `uuids` over memory `clocks`, Hz, one line each; a setting call's line begins with `call`.

    Raises what a session raises for GPUs and clocks that it cannot switch.
    """
    whole(driver, uuids)
    for uuid in uuids:
        for memory in clocks:
            check(driver, uuid, memory, core)
    return tuple(_steps(driver, uuids, clocks, folder, core))


def _steps(driver: Driver, uuids: Sequence[str], clocks: Sequence[int], folder: Path, core: int | None) -> Iterator[str]:
    for uuid in uuids:
        switching = driver.switching(uuid)
        wait = f", {switching.interval * 1e3:g} ms between two switches" if switching.interval else ""
        yield f"read   {uuid}: switching {switching.type.name.lower()}{f' ({switching.why})' if switching.why else ''}{wait}"
        yield f"lock   {folder / f'{uuid}.lock'}"
    yield f"read   clocks of {', '.join(uuids)}, idle and under load"
    yield "start  the watchdog"
    for memory in clocks:
        yield from _point(driver, uuids, memory, folder, core)
    yield "end    the watchdog, once all journals say restored"


def _point(driver: Driver, uuids: Sequence[str], memory: int, folder: Path, core: int | None) -> Iterator[str]:
    yield f"point  {megahertz(memory)}{f', core held at {megahertz(core)}' if core is not None else ''}"
    if core is None and all(driver.read(uuid).holds(memory) for uuid in uuids):
        yield f"measure at {megahertz(memory)}, which is what is read without any call"
        return
    try:
        tries = attempts(driver, uuids, memory, core)
    except DeferredError as error:
        yield f"plan   {error}: no call is made, a plan is written"
        return
    for number, attempt in enumerate(tries):
        if number:
            yield "else   where that is refused or not read back"
        yield from (f"write  {journal.path(folder, uuid)}" for uuid in uuids)
        yield from (f"call   {call}" for way in attempt for call in way.do)
        yield f"verify {megahertz(memory)} under load, then measure, watching both clocks and the reasons for them"
        yield from (f"call   {call}" for way in attempt for call in way.undo)
        yield f"verify that {', '.join(uuids)} read as before; journals: restored"
    if all(driver.switching(uuid).type is SwitchType.DEFERRED for uuid in uuids):
        yield "else   where that is refused or not read back, a plan is written: the driver would have to be loaded anew"
