"""`membound study hbm-fine-tuning --measure`: the study on this machine's GPUs, and its dry run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from membound import units
from membound.cli import output

if TYPE_CHECKING:
    from membound.cli.report_study import Measuring
    from membound.study.hbm_fine_tuning.book import Book
    from membound.study.hbm_fine_tuning.choosing import Choice
    from membound.study.hbm_fine_tuning.here import Here
    from membound.study.hbm_fine_tuning.plan import Plan


UNCALIBRATED: Final = (
    "Predictions rest on rates that ship, not on this machine's: `membound calibrate` (some four minutes) measures its kernels and what its host "
    "takes to launch them, which differs by a factor of two from host to host."
)


def run(plan: Plan, folder: Path, measuring: Measuring, heard: Callable[[str], None]) -> Book:
    """The study's book, measured where this machine can. Ends the command with 128 + N where signal N stopped it; what is done is kept.

    Raises `InputError` where there is no GPU, `StorageError`.
    """
    from membound.study.hbm_fine_tuning import for_real
    from membound.study.hbm_fine_tuning.here import Here
    from membound.study.hbm_fine_tuning.measurements import Measurements

    here = Here.of(name=measuring.machine)
    if not here.calibrated:
        heard(UNCALIBRATED)
    measurements = Measurements(folder / "runs", here, measuring.options(), measuring.steps, measuring.machine)
    book, done = for_real.run(plan, folder, measurements, heard=heard)
    if done.stopped is not None:
        print("membound: stopped: the same command goes on from here", file=sys.stderr)
        raise typer.Exit(128 + done.stopped)
    return book


def rehearse(plan: Plan, folder: Path, measuring: Measuring, as_json: bool) -> None:
    """Print what would be measured, what would be predicted only, and why. Raises `InputError` where there is no GPU."""
    from membound.study.hbm_fine_tuning import for_real
    from membound.study.hbm_fine_tuning.here import Here

    # What a run would refuse, its rehearsal refuses too.
    measuring.options()
    here = Here.of(name=measuring.machine)
    choices = for_real.rehearse(plan, folder, here, measuring.steps)
    if as_json:
        output.write_json(document(choices, here))
    else:
        output.write(text(choices, here))


def document(choices: Sequence[Choice], here: Here) -> dict[str, Any]:
    """The dry run as JSON."""
    machine = {"gpus": list(here.gpus), "catalogue": here.machine, "memory_clock_hz": here.clock, "host_memory_b": here.host_memory}
    runs = {each.point.name: {"origin": "measured" if each.measured else "predicted", "why": each.why} for each in choices}
    return {"schema": 1, "study": "hbm-fine-tuning", "machine": machine, "runs": runs}


def text(choices: Sequence[Choice], here: Here) -> str:
    """The dry run for people: what is measured, then what is not, by reason."""
    wanted = [each for each in choices if each.measured]
    clock = "" if here.clock is None else f", memory at {here.clock / 1e6:.0f} MHz"
    kind = f"{here.machine or 'in no catalogue'}{clock}, {units.show(here.host_memory, 'B')} of host memory"
    lines = [f"This machine: {len(here.gpus)} x {here.gpus[0]} ({kind}).", "", f"Measured, {len(wanted)} of {len(choices)} runs:"]
    lines += [f"  {each.point.name:28} {each.point.title}: {each.why}" for each in wanted]
    told: dict[str, list[str]] = {}
    for each in choices:
        if not each.measured:
            told.setdefault(each.why, []).append(each.point.name)
    lines += ["", "Predicted only:"] if told else []
    for why, names in told.items():
        lines += [f"  {why}:", f"    {', '.join(names)}"]
    lines += [] if here.calibrated else ["", UNCALIBRATED]
    return "\n".join(lines) + "\n"
