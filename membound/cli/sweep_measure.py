"""The part of `membound sweep` that measures: clocks switched by consent, a measured run at each, and the predicted sweep where they cannot be."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from membound.cli import output
from membound.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from membound.run.schema import Run
    from membound.study.sweep.measuring import Errand
    from membound.study.sweep.switching import Sweep


def errand(job: str, out: Path | None, changes: Sequence[str], machine: str | None, steps: int) -> Errand:
    """What is to be measured. Raises `InputError` for what another process cannot be told."""
    from membound.study.sweep.measuring import Errand

    if job == "-":
        raise InputError("job file", job, "write it to a file: each clock is measured by a process of its own")
    for change in changes:
        if change.startswith("machine."):
            raise InputError("--set", change, "this machine is as it is: only fields of the job can be set")
    folder = out or Path("membound-runs") / time.strftime("sweep-%Y%m%d-%H%M%S")
    return Errand(str(Path(job).resolve()), str(folder.resolve()), tuple(changes), machine, steps)


def rehearse(driver: str, over: Sequence[str], gpus: int, as_json: bool) -> None:
    """Print every call that a measured sweep would make; none is made."""
    from membound.measure.clocks import state
    from membound.measure.clocks.opening import open_driver
    from membound.study.sweep import measuring, switching

    found = open_driver(driver)
    lines = switching.rehearse(found, measuring.gpus_of(found, gpus), switching.clocks(_only(over)), state.folder())
    if as_json:
        output.write_json({"schema": 1, "steps": list(lines)})
    else:
        output.write("\n".join(lines) + "\n")


def measure(driver: str, over: Sequence[str], gpus: int, asked: Errand) -> tuple[Sweep[Run] | None, str | None]:
    """What was measured, and the line that says why not all was. Raises what has another cure than a predicted sweep."""
    from membound.measure.clocks.consent import Consent
    from membound.measure.clocks.opening import open_driver
    from membound.measure.clocks.refusals import NotSwitchableError
    from membound.study.sweep import measuring, switching

    text = _only(over)
    consent, clocks = Consent.from_options(True, text), switching.clocks(text)
    try:
        found = open_driver(driver)
    except NotSwitchableError as error:
        return None, str(error)
    uuids = measuring.gpus_of(found, gpus)
    options = switching.Options(payload=dataclasses.asdict(asked))
    load, body = measuring.load_of(found), measuring.measuring(asked, found, uuids)
    result = switching.sweep(found, uuids, clocks, load, body, consent, options)
    return result, result.refused


def resume(path: Path, as_json: bool) -> None:
    """Go on with the plan at `path`, and say what comes next."""
    from membound.measure.clocks import plan
    from membound.measure.clocks.opening import open_driver
    from membound.study.sweep import measuring, switching

    kept = plan.read(path)
    driver = open_driver(kept.driver)
    body = measuring.measuring(measuring.Errand.of(kept.payload), driver, kept.uuids)
    found = switching.resume(path, measuring.load_of(driver), lambda clock: _discard(body(clock)))
    steps = plan.steps(found.plan, path)
    if as_json:
        output.write_json({"schema": 1, "did": found.did, "clock": found.clock, "text": found.text, "steps": list(steps)})
    else:
        output.write("\n".join((found.text, *steps)) + "\n")


def table(found: Sweep[Any]) -> RenderableType:
    """A row per clock, then how the clocks were given back, and why a point does not count."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    from membound.study.sweep.switching import Failed

    grid = Table(title="measured", title_justify="left", box=None, padding=(0, 2, 0, 0))
    for head in ("memory", "core", "step", "tokens fed", "gain", "HBM", "power"):
        grid.add_column(head, justify="right", no_wrap=True)
    notes, first = [], None
    for point in found.points:
        clock = _megahertz(point.memory)
        if isinstance(point, Failed):
            grid.add_row(clock, "does not count")
            notes.append(f"{clock}: {point.reason}")
            continue
        run: Run = point.result
        rate = run.number("tokens.rate")
        first = first or rate
        gain = f"{rate / first - 1:+.1%}" if rate and first else ""
        step, fed, used, power = (_cell(run, name) for name in ("step.time", "tokens.rate", "hbm.utilisation.mean", "gpu.power.mean"))
        grid.add_row(clock, _cores(point), step, fed, gain, used, power)
        notes += point.restored
    return Group(grid, *map(escape, notes))


def _cores(point: Any) -> str:
    """Lowest and highest core clock while it was measured."""
    spans = [seen.core for seen in point.watched.values() if seen.core is not None]
    if not spans:
        return "not read"
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    return _megahertz(high) if low == high else f"{low // 1_000_000} to {_megahertz(high)}"


def _megahertz(clock: int) -> str:
    return f"{clock // 1_000_000} MHz"


def say(why: str, then: str) -> None:
    """One line on standard error: why clocks were not switched, and what is done instead."""
    print(f"membound: {why}; {then}", file=sys.stderr, flush=True)


def _only(over: Sequence[str]) -> str:
    if len(over) != 1:
        raise InputError("--over", " ".join(over), "a measured sweep is over the memory clock alone: machine.gpu.hbm.clock=1593MHz,2619MHz")
    return over[0]


def _cell(run: Run, name: str) -> str:
    from membound.cli.compare import show
    from membound.run.schema import Value

    value = run.values.get(name)
    return show(value.value, value.unit) if isinstance(value, Value) else "not known"


def _discard(run: Run) -> None:
    """The Run is in its folder already."""
