"""Options that several verbs have alike, and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from membound import units

if TYPE_CHECKING:
    from membound.ghost.capture import Limits
    from membound.replay.allocator_settings import AllocatorSettings

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document to standard output and nothing else.")]
JobMachine = Annotated[str | None, typer.Option("--machine", "-m", metavar="NAME", help="Machine of the catalogue, in place of the job file's.")]
ThisMachine = Annotated[str | None, typer.Option("--machine", "-m", metavar="NAME", help="What this machine is in the catalogue, if not recognised.")]
Allocator = Annotated[str, typer.Option(metavar="TEXT", help="PYTORCH_ALLOC_CONF of the run, such as 'expandable_segments:True'.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Capture anew; neither read nor keep traces.")]
CaptureMemory = Annotated[str, typer.Option("--capture-memory", metavar="SIZE", help="Memory that a capture may take of this computer.")]
CaptureTime = Annotated[str, typer.Option("--capture-time", metavar="TIME", help="Time that a capture may take.")]


def limits_of(memory: str, time: str) -> Limits:
    """What a capture may take: `--capture-memory` and `--capture-time`. Raises `UnitError`."""
    from membound.ghost.capture import Limits

    return Limits(units.parse(memory, "B", "--capture-memory"), units.parse(time, "s", "--capture-time"))


def settings_of(text: str) -> AllocatorSettings:
    """The settings that `--allocator` asks for. Raises `InputError`."""
    from membound.replay.allocator_settings import AllocatorSettings

    return AllocatorSettings.parse(text) if text else AllocatorSettings()
