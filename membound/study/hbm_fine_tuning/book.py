"""What the study's figures are drawn from: its Runs, why others are not there, and how all agree with what the report states."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources

from membound.report.charts.figure import Figure, Reference
from membound.report.charts.prose import Prose
from membound.run.schema import Run, Value
from membound.study.claims import agreement, stated
from membound.study.claims.agreement import Agreement
from membound.study.claims.evaluation import evaluate
from membound.study.claims.published import runs as published_runs
from membound.study.claims.quantities import read
from membound.study.claims.stated import Claim
from membound.study.hbm_fine_tuning import plan as plans
from membound.study.hbm_fine_tuning.measurements import Measured
from membound.study.hbm_fine_tuning.plan import Plan
from membound.study.hbm_fine_tuning.runner import Ran


@dataclass(frozen=True)
class Book:
    """All that a figure may ask."""

    plan: Plan
    runs: Mapping[str, Run]
    """Predicted, by name of the point."""
    failed: Mapping[str, str]
    agreements: tuple[Agreement, ...]
    """Misses first."""
    measured: Mapping[str, Run] = field(default_factory=dict)
    """By name of the point; empty where nothing was to be measured."""
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    """Why a measurement failed, by name of the point."""
    why_predicted: Mapping[str, str] = field(default_factory=dict)
    """Why a point was not to be measured here; empty where nothing was."""

    @classmethod
    def of(cls, plan: Plan, ran: Ran, measured: Measured | None = None, why_predicted: Mapping[str, str] | None = None) -> Book:
        """Of what the study has run, and measured."""
        done = measured or Measured()
        ours, theirs = ({name: runs[point] for name, point in plan.report.items() if point in runs} for runs in (ran.runs, done.runs))
        variants = {key: ran.runs[point] for key, point in plan.variants.items() if point in ran.runs}
        reasons = {row["claim"]: row["reason"] for row in rows("reasons.csv")}
        others = {name: ran.runs[point] for name, point in plan.plausible.items() if point in ran.runs and point != plan.report[name]}
        usual = agreement.with_plausible(agreement.agreement(ours, variants, reasons), ours, others)
        agreements = _measured_where_all_are(usual, theirs)
        return cls(plan, ran.runs, ran.failed, agreements, done.runs, done.failed, why_predicted or {})

    def alike(self, names: Collection[str], *quantities: str) -> Book:
        """This book with measured Runs in the place of predicted ones if `quantities` were measured of all `names`: like is compared with like."""
        known = (self.measured[name] for name in names if name in self.measured)
        whole = [run for run in known if all(isinstance(read(run, each), Value) for each in quantities)]
        return replace(self, runs={**self.runs, **self.measured}) if names and len(whole) == len(names) else self

    def origin(self, names: Iterable[str]) -> str:
        """Origin of the runs called `names`, those that are there, in words."""
        return " and ".join(dict.fromkeys(self.runs[name].origin for name in names if name in self.runs)) or "predicted"

    def number(self, name: str, quantity: str) -> float | None:
        """A quantity of the run called `name`, SI; None where either is missing."""
        value = self.value(name, quantity)
        return None if value is None else value.value

    def value(self, name: str, quantity: str) -> Value | None:
        """A quantity of the run called `name`, derived or its own; None where either is missing."""
        run = self.runs.get(name)
        found = None if run is None else read(run, quantity)
        return found if isinstance(found, Value) else None

    def ratio(self, over: str, under: str, quantity: str) -> Value | None:
        """A quantity of one run over that of another, with its band; None where either is missing."""
        claim = Claim("", "ratio", quantity, over, (under,), None, 0.0, 0.0, 0.0, "", "")
        found = evaluate(claim, self.runs)
        return found if isinstance(found, Value) else None

    def without(self, needed: Sequence[str]) -> str:
        """Why runs among `needed` are not there, in one sentence; '' where all are."""
        told: dict[str, list[str]] = {}
        for name in needed:
            if name not in self.runs:
                told.setdefault(self.failed.get(name, "it was not run"), []).append(name)
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in told.items())


def _measured_where_all_are(agreements: Sequence[Agreement], measured: Mapping[str, Run]) -> tuple[Agreement, ...]:
    """Statements whose runs were all measured, and measured what they are about, beside the measured Runs; the others as they are."""
    known = [each.claim for each in agreements if set(each.claim.runs) <= measured.keys()]
    better = {each.claim.id: each for each in agreement.agreement(measured, claims=known) if isinstance(each.ours, Value)}
    return agreement.in_order(better.get(each.claim.id, each) for each in agreements)


def rows(file: str) -> list[dict[str, str]]:
    """A table of the study's data."""
    text = resources.files("membound.study").joinpath(f"data/hbm_fine_tuning/{file}").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def absent(label: str, title: str, reason: str) -> Figure:
    """What stands in the place of a figure that cannot be drawn."""
    return Prose(title=title, label=label, paragraphs=(f"Missing: {reason}.",))


def published(run: str, quantity: str) -> Value | None:
    """What the report states of one of its runs; None where it states nothing."""
    found = published_runs()[run].values.get(quantity)
    return found if isinstance(found, Value) else None


def briefly(why: str) -> str:
    """Why a job does not fit, without the line of the program at which it stops."""
    return why.partition(": ")[0]


def reference(run: str, quantity: str, words: str) -> tuple[Reference, ...]:
    """The published value as a line across a figure; none where the report states none."""
    value = published(run, quantity)
    return () if value is None else (Reference(value.value, words, value.basis),)


def claim(name: str) -> Claim:
    """The report's statement `name`."""
    return next(each for each in stated.claims() if each.id == name)


def title(job: str) -> str:
    """Words for a job of the plan."""
    return plans.title(job)


def setting(job: str) -> str:
    """The most plausible setting of a job of the plan in a few words: what its title adds to the job's own."""
    return title(job + plans.PLAUSIBLE).rpartition(", ")[2]
