"""What the study's figures are drawn from: its Runs, why others are not there, and how all agree with what the report states."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from membound.report.charts.figure import Figure, Reference
from membound.report.charts.prose import Prose
from membound.run.schema import Run, Value
from membound.study import claim_evaluation, claim_quantities, published_claims, published_runs, report_claims
from membound.study.hbm_fine_tuning import plan as plans
from membound.study.hbm_fine_tuning.plan import Plan
from membound.study.hbm_fine_tuning.runner import Ran
from membound.study.published_claims import Claim
from membound.study.report_claims import Agreement


@dataclass(frozen=True)
class Book:
    """All that a figure may ask."""

    plan: Plan
    runs: Mapping[str, Run]
    """By name of the point."""
    failed: Mapping[str, str]
    agreements: tuple[Agreement, ...]
    """Misses first."""

    @classmethod
    def of(cls, plan: Plan, ran: Ran) -> Book:
        """Of what the study has run."""
        ours = {name: ran.runs[point] for name, point in plan.report.items() if point in ran.runs}
        variants = {key: ran.runs[point] for key, point in plan.variants.items() if point in ran.runs}
        reasons = {row["claim"]: row["reason"] for row in rows("reasons.csv")}
        return cls(plan, ran.runs, ran.failed, report_claims.agreement(ours, variants, reasons))

    def number(self, name: str, quantity: str) -> float | None:
        """A quantity of the run called `name`, SI; None where either is missing."""
        value = self.value(name, quantity)
        return None if value is None else value.value

    def value(self, name: str, quantity: str) -> Value | None:
        """A quantity of the run called `name`, derived or its own; None where either is missing."""
        run = self.runs.get(name)
        found = None if run is None else claim_quantities.read(run, quantity)
        return found if isinstance(found, Value) else None

    def ratio(self, over: str, under: str, quantity: str) -> Value | None:
        """A quantity of one run over that of another, with its band; None where either is missing."""
        claim = Claim("", "ratio", quantity, over, (under,), None, 0.0, 0.0, 0.0, "", "")
        found = claim_evaluation.evaluate(claim, self.runs)
        return found if isinstance(found, Value) else None

    def without(self, needed: Sequence[str]) -> str:
        """Why runs among `needed` are not there, in one sentence; '' where all are."""
        told: dict[str, list[str]] = {}
        for name in needed:
            if name not in self.runs:
                told.setdefault(self.failed.get(name, "it was not run"), []).append(name)
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in told.items())


def rows(file: str) -> list[dict[str, str]]:
    """A table of the study's data."""
    text = resources.files("membound.study").joinpath(f"data/hbm_fine_tuning/{file}").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def absent(label: str, title: str, reason: str) -> Figure:
    """What stands in the place of a figure that cannot be drawn."""
    return Prose(title=title, label=label, paragraphs=(f"Missing: {reason}.",))


def published(run: str, quantity: str) -> Value | None:
    """What the report states of one of its runs; None where it states nothing."""
    found = published_runs.runs()[run].values.get(quantity)
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
    return next(each for each in published_claims.claims() if each.id == name)


def title(job: str) -> str:
    """Words for a job of the plan."""
    return plans.title(job)
