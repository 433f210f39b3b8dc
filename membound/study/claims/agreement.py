"""How far predicted, or measured, Runs agree with what the report states: every claim beside ours, misses first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from membound.run.schema import Missing, Run, Value
from membound.study.claims import evaluation, published, stated
from membound.study.claims.stated import Claim

Verdict = Literal["miss", "missing", "within tolerance", "in band"]
_ORDER: Final[tuple[Verdict, ...]] = ("miss", "missing", "within tolerance", "in band")
# As `membound.study.hbm_fine_tuning.bounds` names them.
_WORDS: Final = {
    "compute": "arithmetic", "hbm": "HBM", "fixed": "kernels' fixed times", "launch": "launches by the host", "nvlink": "NVLink", "pcie": "PCIe",
    "ddr": "host memory", "host_compute": "host processors",
}  # fmt: skip
_BAND: Final = {"predicted": "prediction's own band", "measured": "spread of the measured steps"}


@dataclass(frozen=True)
class Spread:
    """A claim over the plausible settings of what the report leaves open."""

    values: Mapping[str, float]
    """Ours by name of the setting, where it could be had."""

    @property
    def low(self) -> float:
        """The lowest of ours."""
        return min(self.values.values())

    @property
    def high(self) -> float:
        """The highest of ours."""
        return max(self.values.values())


@dataclass(frozen=True)
class Agreement:
    """One claim beside ours."""

    claim: Claim
    ours: Value | Missing
    """In the claim's unit: a value, a ratio, or 1 and 0 for what holds and what does not."""
    spread: Spread | None = None
    """None where no other setting was run."""
    reason: str = ""
    """Why it misses, where somebody has found out."""
    origin: str = ""
    """Of ours: measured or predicted, as the Runs say."""
    plausible: Value | Missing | None = None
    """Ours under the most plausible setting of what the report leaves open; None where that is the usual one, or none was run."""
    rests: bool = False
    """Whether the choice of that setting rests on this very statement, which then tests nothing."""

    @property
    def verdict(self) -> Verdict:
        """Whether ours lies in what the words allow, or within membound's own aim of that."""
        return _verdict(self.claim, self.ours)

    @property
    def plausible_verdict(self) -> Verdict:
        """The same under the most plausible setting."""
        return self.verdict if self.plausible is None else _verdict(self.claim, self.plausible)

    @property
    def distance(self) -> float | None:
        """How far ours lies outside what the words allow, in the claim's unit; 0 inside; None where ours is missing."""
        return None if isinstance(self.ours, Missing) else outside(self.claim, self.ours.value)

    @property
    def ratio(self) -> float | None:
        """Ours over the published number; None where either is missing, or the number is 0."""
        if isinstance(self.ours, Missing) or not self.claim.value:
            return None
        return self.ours.value / self.claim.value

    @property
    def size(self) -> float:
        """The distance relative to the end of the band that it is measured from, for sorting; 0 inside."""
        off = self.distance
        end = self.claim.high if isinstance(self.ours, Value) and self.ours.value > self.claim.high else self.claim.low
        return off / abs(end) if off and math.isfinite(end) and end else off or 0.0

    @property
    def overlaps(self) -> bool | None:
        """Whether the prediction's own band reaches into what the words allow; None where ours is missing."""
        if isinstance(self.ours, Missing):
            return None
        return self.ours.low <= self.claim.high and self.ours.high >= self.claim.low

    @property
    def settled_by(self) -> tuple[str, ...]:
        """The plausible settings under which ours lies within the aim."""
        if self.spread is None:
            return ()
        return tuple(name for name, value in self.spread.values.items() if outside(self.claim, value) <= self.claim.tolerance)


def _verdict(claim: Claim, ours: Value | Missing) -> Verdict:
    if isinstance(ours, Missing):
        return "missing"
    off = outside(claim, ours.value)
    if off == 0:
        return "in band"
    return "within tolerance" if off <= claim.tolerance else "miss"


def outside(claim: Claim, value: float) -> float:
    """How far `value` lies outside what the words of `claim` allow; 0 inside."""
    return max(claim.low - value, value - claim.high, 0.0)


def agreement(
    runs: Mapping[str, Run],
    variants: Mapping[tuple[str, str], Run] | None = None,
    reasons: Mapping[str, str] | None = None,
    claims: Iterable[Claim] | None = None,
) -> tuple[Agreement, ...]:
    """Every claim beside `runs`, which are ours by the report's ids: misses first, the largest before, then what is missing, then the rest.

    `variants` are Runs under the plausible settings, by id and name of the setting (see `published`); `reasons` say why a claim is
    missed, by its id.
    """
    asked = stated.claims() if claims is None else tuple(claims)
    settings = {name: tuple(each.name for each in experiment.settings) for name, experiment in published.experiments().items()}
    found = [_agreement(claim, runs, variants or {}, settings) for claim in asked]
    explained = [replace(each, reason=_reason(each, runs, reasons or {})) for each in found]
    return in_order(explained)


def with_plausible(agreements: Iterable[Agreement], runs: Mapping[str, Run], plausible: Mapping[str, Run]) -> tuple[Agreement, ...]:
    """`agreements` with ours under the most plausible settings: `plausible` are the Runs of those that have another than the usual one."""
    rested = {name for each in published.experiments().values() if (best := each.most_plausible) is not None for name in best.rests_on}
    return tuple(
        replace(each, plausible=evaluation.evaluate(each.claim, {**runs, **plausible}), rests=each.claim.id in rested)
        if set(each.claim.runs) & plausible.keys()
        else each
        for each in agreements
    )


def in_order(agreements: Iterable[Agreement]) -> tuple[Agreement, ...]:
    """Misses first, the largest before, then what is missing, then the rest."""
    return tuple(sorted(agreements, key=lambda each: (_ORDER.index(each.verdict), -each.size)))


def _agreement(claim: Claim, runs: Mapping[str, Run], variants: Mapping[tuple[str, str], Run], settings: Mapping[str, tuple[str, ...]]) -> Agreement:
    names = dict.fromkeys(name for each in claim.runs for name in settings.get(each, ()))
    values: dict[str, float] = {}
    for name in names:
        # Runs that have the setting are taken with it, all others as they are.
        changed = {each: variants[each, name] for each in claim.runs if (each, name) in variants}
        ours = evaluation.evaluate(claim, {**runs, **changed}) if changed else Missing("not run")
        if isinstance(ours, Value):
            values[name] = ours.value
    origins = dict.fromkeys(runs[name].origin for name in claim.runs if name in runs)
    return Agreement(claim, evaluation.evaluate(claim, runs), Spread(values) if values else None, origin=", ".join(origins))


def _reason(each: Agreement, runs: Mapping[str, Run], reasons: Mapping[str, str]) -> str:
    if each.verdict == "missing":
        assert isinstance(each.ours, Missing)
        return each.ours.reason
    if each.verdict != "miss":
        return reasons.get(each.claim.id, "")
    parts = [reasons.get(each.claim.id, "")]
    if each.settled_by:
        parts.append(f"a setting that the report does not state decides: ours agrees with {', '.join(each.settled_by)}")
    if each.overlaps:
        parts.append(f"the {_BAND.get(each.origin, 'band of ours')} reaches into it")
    parts += [each.claim.note, _bound_by(each.claim, runs)]
    return "; ".join(part for part in parts if part)


def _bound_by(claim: Claim, runs: Mapping[str, Run], least: float = 0.05) -> str:
    """What the step time of ours hangs on, where the Run says so: by how much it falls for each per cent that a resource gets faster."""
    shares = runs[claim.run].about.get("sensitivity", {})
    if not shares or claim.quantity.startswith(("gpu.memory", "host.memory", "hbm.capacity")):
        return ""
    most = sorted(((share, name) for name, share in shares.items() if share >= least), reverse=True)
    return f"the step of ours hangs on {', '.join(f'{_WORDS.get(name, name)} {share:.0%}' for share, name in most)}"
