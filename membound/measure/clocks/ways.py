"""Which ways there are to switch one GPU's memory clock, from what its driver says; the first is tried first."""

from __future__ import annotations

from collections.abc import Sequence

from membound.errors import InputError
from membound.measure.clocks import calls
from membound.measure.clocks.calls import Way, megahertz
from membound.measure.clocks.consent import PATH
from membound.measure.clocks.driver import Driver, SwitchType
from membound.measure.clocks.refusals import DeferredError, NotSwitchableError


def check(driver: Driver, uuid: str, memory: int, core: int | None) -> None:
    """Raise `InputError`, with the list, for a clock in Hz that the GPU does not support, and `NotSwitchableError` where it lists none."""
    supported = driver.memory_clocks(uuid)
    if not supported:
        raise NotSwitchableError(f"{uuid}: the driver lists no memory clocks: a sweep can be predicted")
    if memory not in supported:
        raise InputError(PATH, megahertz(memory), f"{uuid} supports {', '.join(map(megahertz, supported))}")
    if core is not None and core not in (listed := driver.core_clocks(uuid, memory)):
        cure = f"at {megahertz(memory)} {uuid} supports {megahertz(listed[-1])} to {megahertz(listed[0])} in steps" if listed else "none is listed"
        raise InputError("core clock", megahertz(core), cure)


def ways(driver: Driver, uuid: str, memory: int, core: int | None = None) -> tuple[Way, ...]:
    """Ways to the memory clock `memory`, Hz, with the core clock held at `core` where one is given.

    Where only a reload would do, the applications clock is still tried, since it costs nothing and the read-back decides. Raises
    `NotSwitchableError` where the driver rules it out, and `DeferredError` where only a reload is left.
    """
    check(driver, uuid, memory, core)
    switching = driver.switching(uuid)
    found: list[Way] = []
    if switching.type in {SwitchType.RUNTIME, SwitchType.UNKNOWN}:
        found.append(calls.locked(uuid, memory))
    if switching.type in {SwitchType.DEFERRED, SwitchType.UNKNOWN} and (way := _applications(driver, uuid, memory)):
        found.append(way)
    if not found and switching.type is SwitchType.DEFERRED:
        raise DeferredError(f"{uuid}: the driver switches the memory clock only as it loads")
    if not found:
        raise NotSwitchableError(f"{uuid}: the driver says that this memory clock cannot be switched: a sweep can be predicted")
    return tuple(calls.holding_core(way, uuid, core) if core is not None else way for way in found)


def attempts(driver: Driver, uuids: Sequence[str], memory: int, core: int | None = None) -> tuple[tuple[Way, ...], ...]:
    """What to try in turn on all of `uuids` together: in each attempt a way for each. Raises as `ways` does."""
    found = [ways(driver, uuid, memory, core) for uuid in uuids]
    kinds = {tuple(way.name for way in each) for each in found}
    if len(kinds) > 1:
        raise NotSwitchableError(f"{', '.join(uuids)}: their drivers switch in different ways: sweep over GPUs that are alike")
    return tuple(zip(*found, strict=True))


def _applications(driver: Driver, uuid: str, memory: int) -> Way | None:
    before, listed = driver.applications(uuid), driver.core_clocks(uuid, memory)
    if before is None or not listed:
        return None
    # The core's own setting stays where the board has it at this memory clock too.
    return calls.applications(uuid, memory, before[1] if before[1] in listed else listed[0], before)
