"""What the report says of its runs against each other: gains, orders, bounds. One claim each, with the words, the place and its contradictions."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from typing import Final, Literal, TypeVar, get_args

from membound.errors import RecordError
from membound.run.schema import Value
from membound.study.claims import published

Kind = Literal["value", "fits-gpu", "fits-host", "ratio", "order", "lowest", "lowest-of-like", "median"]
"""value: a quantity of one run. fits: the verdict. ratio: the run's quantity over the other's. order: the run and the others, rising.
lowest: the run below all others; of like: below those whose HBM use is comparable. median: over the run and the others."""

_T = TypeVar("_T", float, None)
_FILE: Final = "claims.csv"
# What the report's sensors could tell, in place of what a Run holds: its series has 20 ms bins whatever the sensor.
_SENSED: Final = {"hbm.utilisation.peak": "hbm.utilisation.peak.sensed"}


@dataclass(frozen=True)
class Claim:
    """One statement of the report."""

    id: str
    kind: Kind
    quantity: str
    """A quantity of a Run, or one of `quantities.DERIVED`; empty for verdicts."""
    run: str
    """Id of the run that it is about."""
    against: tuple[str, ...]
    """Ids of the runs that it is compared with."""
    value: float | None
    """The number as printed, in the quantity's SI unit or as a ratio; 1 and 0 for an order or a verdict that holds or does not; None: a bound."""
    low: float
    """Lower end of what the words allow; minus infinity where they set none."""
    high: float
    """Upper end; infinity where they set none."""
    tolerance: float
    """How far beyond the ends membound aims to come, in the same unit: 0 where it aims at none."""
    statement: str
    at: str
    """Section, figure or table."""
    note: str = ""
    """How it was read, and what in the report contradicts it."""

    @property
    def runs(self) -> tuple[str, ...]:
        """Ids of all runs that it needs."""
        return (self.run, *self.against)


def claims() -> tuple[Claim, ...]:
    """Every statement of the report about its runs: those of single runs first, then those between runs."""
    return (*_single(), *between())


def between() -> tuple[Claim, ...]:
    """The statements between runs, and bounds. Raises `RecordError` for an unknown kind or two claims of one id."""
    found = tuple(_claim(entry) for entry in csv.DictReader(published.text(_FILE).splitlines()))
    if len({each.id for each in found}) < len(found):
        raise RecordError(f"{_FILE}: two claims share an id")
    return found


def _single() -> list[Claim]:
    found = []
    for name, experiment in published.experiments().items():
        for quantity, value in experiment.run.values.items():
            if isinstance(value, Value):
                at, _, words = value.basis.partition(": ")
                claim = Claim(
                    f"{name} {quantity}", "value", _SENSED.get(quantity, quantity), name, (), value.value, value.low, value.high, 0.0, words, at
                )
                found.append(claim)
        found += _verdicts(experiment)
    return found


def _verdicts(experiment: published.Experiment) -> list[Claim]:
    fits = experiment.run.fits
    if not fits.gpu:
        return [_verdict(experiment, "fits-gpu", False, "it needs more memory than one GPU has")]
    if not fits.host:
        return [_verdict(experiment, "fits-host", False, "OOM: out of host memory")]
    return [_verdict(experiment, "fits-gpu", True, "it ran: the GPUs held it"), _verdict(experiment, "fits-host", True, "it ran: the host held it")]


def _verdict(experiment: published.Experiment, kind: Kind, fits: bool, words: str) -> Claim:
    return Claim(f"{experiment.id} {kind}", kind, "", experiment.id, (), float(fits), float(fits), float(fits), 0.0, words, experiment.section)


def _claim(entry: dict[str, str]) -> Claim:
    if entry["kind"] not in get_args(Kind):
        raise RecordError(f"{_FILE}: {entry['id']}: unknown kind {entry['kind']}")
    kind: Kind = entry["kind"]  # type: ignore[assignment]
    return Claim(
        entry["id"], kind, entry["quantity"], entry["run"], tuple(entry["against"].split()),
        _number(entry["value"], None), _number(entry["low"], -math.inf), _number(entry["high"], math.inf), _number(entry["tolerance"], 0.0),
        entry["statement"], entry["at"], entry["note"],
    )  # fmt: skip


def _number(text: str, otherwise: _T) -> float | _T:
    return float(text) if text else otherwise
