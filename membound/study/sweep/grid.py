"""What a sweep goes over: fields of the Job and of the Machine with a list of values each, and the Job and Machine at every combination.

A field that does not exist, a value of another unit and an empty list are refused before anything is captured. A combination that cannot be
asked, such as more GPUs than the machine has, is a point with a reason.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, get_args

from pydantic import BaseModel, create_model

from membound import units
from membound.errors import InputError
from membound.spec import catalogue, fields, jobfile, safe_yaml
from membound.spec.job import Job
from membound.spec.machine import Machine

MACHINE: Final = "machine"
"""The axis of catalogue names; `machine.` begins a field of whichever machine it is."""
LIMIT: Final = 100_000
"""Points of a sweep at most: chosen so that one takes an hour on two cores, and not a day."""
_EXAMPLE: Final = "write KEY=VALUE,VALUE,..., such as machine.gpu.hbm.clock=1593MHz,2619MHz"


@dataclass(frozen=True)
class Axis:
    """A dotted field, and the values that it takes, as they were written."""

    key: str
    values: tuple[object, ...]

    @property
    def of_machine(self) -> bool:
        """Whether this is a field of the machine, or the machine itself."""
        return self.key.split(".")[0] == MACHINE

    @classmethod
    def parse(cls, text: str) -> Axis:
        """The axis that 'KEY=V1,V2' writes. Raises `InputError`."""
        key, equals, listed = text.partition("=")
        key = key.strip()
        if not equals or not key or not all(key.split(".")):
            raise InputError("--over", text, _EXAMPLE)
        return cls(key, tuple(safe_yaml.value(part, key) for part in _split(listed) if part.strip()))


@dataclass(frozen=True)
class Grid:
    """A Job, changes to its machine (dotted, without `machine.`), and the axes; the first axis varies slowest."""

    job: Job
    axes: tuple[Axis, ...]
    machine_changes: Mapping[str, object] = field(default_factory=dict)

    def __len__(self) -> int:
        return math.prod(len(axis.values) for axis in self.axes)

    def check(self) -> None:
        """Raise `InputError` for the first axis that cannot be asked at all, and for too many points."""
        if not self.axes:
            raise InputError("--over", "", _EXAMPLE)
        for number, axis in enumerate(self.axes):
            if axis.key in {other.key for other in self.axes[:number]} | {f"{MACHINE}.{key}" for key in self.machine_changes}:
                raise InputError("--over", axis.key, "give each field once")
            _check(axis)
        if len(self) > LIMIT:
            raise InputError("--over", f"{len(self):,} points", f"ask for {LIMIT:,} at most")

    def points(self) -> Iterator[dict[str, object]]:
        """Every combination of values, by key."""
        keys = [axis.key for axis in self.axes]
        for values in itertools.product(*(axis.values for axis in self.axes)):
            yield dict(zip(keys, values, strict=True))

    def asked(self, point: Mapping[str, object]) -> jobfile.Asked:
        """The Job and the part of the Machine at `point`. Raises `InputError` for a combination that cannot be asked."""
        of_machine = dict(self.machine_changes)
        of_job: dict[str, object] = {}
        for key, value in point.items():
            if key.startswith(f"{MACHINE}."):
                of_machine[key.removeprefix(f"{MACHINE}.")] = value
            else:
                of_job[key] = value
        job = fields.with_values(self.job, of_job) if of_job else self.job
        return jobfile.ask(job, of_machine)


def whole(job: Job, over: Mapping[str, Sequence[object]], machine: str | None = None, changes: Mapping[str, object] | None = None) -> Grid:
    """The checked grid of `job` over fields with their values. `machine` and `changes` (dotted, without `machine.`) are the same everywhere.

    Raises `InputError`.
    """
    if machine is not None and MACHINE in over:
        raise InputError("machine", machine, "leave it out: the axis machine names the machines")
    named = job if machine is None else job.model_copy(update={"machine": machine})
    axes = tuple(Axis(key, tuple(values)) for key, values in over.items())
    grid = Grid(named, axes, dict(changes or {}))
    grid.check()
    return grid


def _split(listed: str) -> list[str]:
    """At commas that stand in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in listed:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        depth += (sign in "[{") - (sign in "]}") if not quote else 0
        if sign == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _check(axis: Axis) -> None:
    if not axis.values:
        raise InputError("--over", axis.key, f"has no values: {_EXAMPLE}")
    if len({repr(value) for value in axis.values}) < len(axis.values):
        raise InputError("--over", axis.key, "name each value once")
    for value in axis.values:
        if axis.key == MACHINE:
            catalogue.machine(str(value))
        elif axis.of_machine:
            _check_field(Machine, axis.key.split(".")[1:], MACHINE, value)
        else:
            _check_field(Job, axis.key.split("."), "", value)
            if axis.key == "model":
                catalogue.model_entry(str(value))


def _check_field(model: type[BaseModel], keys: Sequence[str], parent: str, value: object) -> None:
    """Raise `InputError` if `model` has no such field, or the field by itself does not take `value`."""
    name, *rest = keys
    info = model.model_fields.get(name)
    if rest and info is not None:
        inner = next((each for each in _branches(info.annotation) if isinstance(each, type) and issubclass(each, BaseModel)), None)
        where = f"{parent}.{name}" if parent else name
        if inner is None:
            raise InputError(".".join((where, *rest)), value, f"{where} has no parts")
        _check_field(inner, rest, where, value)
        return
    # The same fields, without the checks that tie them to each other.
    loose: dict[str, Any] = {
        known: (Annotated[each.annotation, *each.metadata] if each.metadata else each.annotation, None) for known, each in model.model_fields.items()
    }
    fields.read(create_model(model.__name__, __base__=fields.Spec, **loose), {name: value}, parent)


def _branches(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _branches(part)


def parsed_changes(changes: Sequence[str]) -> tuple[list[str], dict[str, object]]:
    """`--set` options as those of the Job, which stay text, and those of its machine, read: dotted, without `machine.`. Raises `InputError`."""
    of_job, of_machine = [], {}
    for change in changes:
        key, equals, text = change.partition("=")
        if equals and key.strip().startswith(f"{MACHINE}."):
            of_machine[key.strip().removeprefix(f"{MACHINE}.")] = safe_yaml.value(text, key.strip())
        else:
            of_job.append(change)
    return of_job, of_machine


def unit_of(key: str) -> str | None:
    """The SI unit of the field `key`, '' for a plain number; None where its values are no numbers."""
    if key == MACHINE:
        return None
    parts = key.split(".")
    model: type[BaseModel] = Machine if parts[0] == MACHINE else Job
    annotation: Any = None
    for name in parts[1:] if model is Machine else parts:
        info = model.model_fields[name]
        annotation = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        model = next((each for each in _branches(annotation) if isinstance(each, type) and issubclass(each, BaseModel)), model)
    branches = list(_branches(annotation))
    quantity = next((each for each in branches if isinstance(each, fields.Quantity)), None)
    if quantity is not None:
        return quantity.unit
    return "" if int in branches or float in branches else None


def numbers(axis: Axis) -> tuple[float, ...] | None:
    """The axis's values in its SI unit, or None where not all are numbers."""
    unit = unit_of(axis.key)
    if unit is None or not all(isinstance(value, str | int | float) and not isinstance(value, bool) for value in axis.values):
        return None
    return tuple(units.parse(value, unit or "1", axis.key) for value in axis.values if isinstance(value, str | int | float))
