"""Two Runs side by side: measured, predicted or published, whichever. Unlike ones are refused by naming the field that differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from membound.errors import UnlikeError
from membound.run.quantities import QUANTITIES
from membound.run.schema import Missing, Run, Value

# What changes neither memory nor time: names of places, and how far a step goes.
_INDIFFERENT: Final = {"machine", "allow_code", "recipe.learning_rate", "data.path", "data.tokenizer"}
# What of a machine decides; its other fields are descriptions, or follow from these.
_OF_MACHINE: Final = ("gpu.name", "gpu.hbm.clock", "gpu.hbm.capacity", "gpu.power.limit", "gpus", "nodes")


@dataclass(frozen=True)
class Row:
    """One quantity of both Runs."""

    name: str
    unit: str
    first: Value | Missing
    second: Value | Missing
    inside: bool | None
    """Whether what was observed lies in the band of what was predicted; None where one of the two is missing or not of that kind."""

    @property
    def ratio(self) -> float | None:
        """The second over the first; None where either is missing or the first is 0."""
        if isinstance(self.first, Missing) or isinstance(self.second, Missing) or self.first.value == 0:
            return None
        return self.second.value / self.first.value

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"first": self.first.document(), "second": self.second.document(), "ratio": self.ratio, "inside": self.inside}


@dataclass(frozen=True)
class Comparison:
    """Two Runs and what each says of the same quantities."""

    first: Run
    second: Run
    rows: tuple[Row, ...]
    differences: tuple[str, ...]
    """Fields in which they differ although that was to be overlooked, with both values."""

    @property
    def judged(self) -> int:
        """How many observed values have a predicted band to lie in."""
        return sum(row.inside is not None for row in self.rows)

    @property
    def inside(self) -> int:
        """How many of these do."""
        return sum(row.inside is True for row in self.rows)

    def document(self) -> dict[str, Any]:
        """The JSON document of the command line."""
        return {
            "schema": 1,
            "first": _heading(self.first),
            "second": _heading(self.second),
            "differences": list(self.differences),
            "judged": self.judged,
            "inside": self.inside,
            "values": {row.name: row.document() for row in self.rows},
        }


def compare(first: Run, second: Run, unlike: bool = False) -> Comparison:
    """Lay two Runs side by side. Raises `UnlikeError` if they are of different jobs or machines, unless `unlike` says to go on."""
    found = tuple(differences(first, second))
    if found and not unlike:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UnlikeError(f"these runs differ in {found[0]}{more}: compare like with like, or write --unlike")
    names = [name for name in QUANTITIES if name in first.values and name in second.values]
    return Comparison(first, second, tuple(_row(name, first, second) for name in names), found)


def differences(first: Run, second: Run) -> Iterator[str]:
    """Fields that matter in which two Runs differ: `field: value against value`. What either does not say is no difference."""
    jobs, machines = (_flat(first.job), _flat(second.job)), (_flat(first.machine), _flat(second.machine))
    for key in jobs[0]:
        if key in jobs[1] and key not in _INDIFFERENT and jobs[0][key] != jobs[1][key]:
            yield f"{key}: {jobs[0][key]} against {jobs[1][key]}"
    for kind in ("command", "model"):
        if (kind in jobs[0]) != (kind in jobs[1]):
            yield f"{kind}: {jobs[0].get(kind, 'none')} against {jobs[1].get(kind, 'none')}"
    for key in _OF_MACHINE:
        one, other = machines[0].get(key), machines[1].get(key)
        # A machine without any GPU names none: that is a difference too.
        if one != other and ((one is not None and other is not None) or key == "gpu.name"):
            yield f"machine.{key}: {one or 'none'} against {other or 'none'}"


def _flat(document: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}.")
        elif value is not None:
            # JSON knows no tuples.
            found[before + key] = list(value) if isinstance(value, tuple) else value
    return found


def _row(name: str, first: Run, second: Run) -> Row:
    one, other = first.values[name], second.values[name]
    predicted, observed = (one, other) if first.origin == "predicted" else (other, one)
    judged = {first.origin, second.origin} in ({"predicted", "measured"}, {"predicted", "published"})
    inside = None
    if judged and isinstance(predicted, Value) and isinstance(observed, Value):
        inside = predicted.low <= observed.value <= predicted.high
    return Row(name, QUANTITIES[name].unit, one, other, inside)


def _heading(run: Run) -> dict[str, Any]:
    return {"origin": run.origin, "job": dict(run.job), "machine": run.machine.get("name"), "fits": run.fits.document()}
