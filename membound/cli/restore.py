"""`membound restore`: give back every memory clock that a sweep left changed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from membound.cli import output
from membound.cli.options import AsJson
from membound.errors import MemboundError

_State = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", help="Folder of the journals, in place of $MEMBOUND_STATE or the user's state folder.")
]


def restore(folder: _State = None, as_json: AsJson = False) -> None:
    """Look for journals of sweeps that were cut off, give the clocks back, read them back, and say what was found and done."""
    from membound.measure.clocks import journal, plan, state

    place = folder or state.folder()
    done, failed = {}, {}
    for uuid in journal.uuids(place):
        try:
            done[uuid] = _one(place, uuid)
        except MemboundError as error:
            failed[uuid] = str(error)
    plans = [str(path) for path in sorted(place.glob(plan.PATTERN)) if not _ended(path)]
    if as_json:
        found = {uuid: {"restored": True, "text": text} for uuid, text in done.items()} | {
            uuid: {"restored": False, "text": text} for uuid, text in failed.items()
        }
        output.write_json({"schema": 1, "folder": str(place), "gpus": found, "plans": plans})
    else:
        _print(place, done, plans)
    for text in failed.values():
        print(f"membound: {text}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _one(place: Path, uuid: str) -> str:
    from membound.measure.clocks import lock, restoring, signals

    with signals.raising(), lock.held(place, [uuid]), signals.shielded():
        return restoring.restore(place, uuid, "membound restore").text


def _ended(path: Path) -> bool:
    from membound.measure.clocks import plan

    try:
        return plan.read(path).ended
    except MemboundError:
        # What cannot be read cannot be said to be at its end.
        return False


def _print(place: Path, done: dict[str, str], plans: list[str]) -> None:
    lines = [f"{uuid}: {text}" for uuid, text in done.items()]
    lines += [f"{path}: a plan that is not at its end: `membound sweep --resume {path}` says its next step" for path in plans]
    output.write("\n".join(lines or [f"nothing to do: no journal in {place}"]) + "\n")
