"""`membound catalogue`: the models and machines that are known by name, each value with its source."""

from __future__ import annotations

from typing import Annotated

import typer

from membound import units
from membound.cli import output
from membound.cli.options import AsJson
from membound.errors import UnknownNameError

_Kind = Annotated[str | None, typer.Argument(metavar="[models|machines]", help="Which of the two; both if left out.")]
_Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show this entry whole.")]


def catalogue(kind: _Kind = None, name: _Name = None, as_json: AsJson = False) -> None:
    """List what is known by name, or show one entry."""
    from membound.spec import catalogue as known

    lists = {"models": known.models, "machines": known.machines}
    if kind is not None and kind not in lists:
        raise UnknownNameError("catalogue", kind, lists)
    if kind is not None and name is not None:
        _show(_entry(kind, name), as_json)
        return
    wanted = [kind] if kind else list(lists)
    if as_json:
        output.write_json({"schema": 1, **{each: lists[each]() for each in wanted}})
        return
    for each in wanted:
        lines = [_line(each, entry) for entry in lists[each]()]
        output.write(f"{each}\n" + "".join(f"  {line}\n" for line in lines))


def _entry(kind: str, name: str) -> dict[str, object]:
    from membound.spec import catalogue as known

    if kind == "machines":
        return dict(known.machine(name).model_dump(mode="json"))
    entry = known.model(name)
    reference = {"reference": entry.reference} if entry.reference is not None else {}
    return {"name": entry.name, "parameters": entry.parameters, "source": entry.source, **reference, "config": entry.config}


def _line(kind: str, name: str) -> str:
    from membound.spec import catalogue as known

    if kind == "models":
        count = known.model(name).parameters
        return f"{name:24}{f'{count:>19,} parameters' if count is not None else ''}".rstrip()
    machine = known.machine(name)
    hbm = machine.gpu.hbm
    return f"{name:24}{machine.gpus} x {units.show(hbm.capacity, 'B')} {hbm.kind}, {units.show(hbm.bandwidth, 'B/s')}"


def _show(entry: dict[str, object], as_json: bool) -> None:
    if as_json:
        output.write_json({"schema": 1, **entry})
        return
    import yaml

    output.write(yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, width=150))
