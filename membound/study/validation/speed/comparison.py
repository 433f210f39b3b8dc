"""Predicted speed against what others measured and published, row by row; nothing left out in silence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from membound.errors import MemboundError
from membound.run.schema import Missing, Run
from membound.spec import catalogue
from membound.study.once import Once, unheard
from membound.study.predicting import Predictor
from membound.study.validation.answered import Failed
from membound.study.validation.outcome import LeftOut, machine_of, told
from membound.study.validation.speed import mapping, rows
from membound.study.validation.speed.outcome import EXAM, GROUPS, STEP, SpeedOutcome, Timed


@dataclass(frozen=True)
class Predicted:
    """What a prediction says of one optimizer step."""

    seconds: float
    """Time of the step, s."""
    low: float
    """Lower end of its band, s."""
    high: float
    """Upper end of its band, s."""
    tokens: float
    """Tokens fed per second and GPU, padding included."""
    flops: float
    """FLOP that the model asks for in the step on one GPU, without recomputation."""


@dataclass(frozen=True)
class SpeedCompared:
    """A row beside its prediction."""

    case: Timed
    gpu: str
    """Catalogue name of the GPU."""
    predicted: Predicted

    @property
    def value(self) -> float:
        """The row's quantity as predicted."""
        return self.predicted.seconds if self.case.quantity == STEP else self.predicted.tokens

    @property
    def ratio(self) -> float:
        """Predicted speed over published speed: above 1 where the prediction is too fast, whichever quantity was printed."""
        return self.case.published / self.value if self.case.quantity == STEP else self.value / self.case.published

    @property
    def inside(self) -> bool:
        """Whether the published time lies in the prediction's band."""
        return self.predicted.low <= self.predicted.seconds * self.ratio <= self.predicted.high

    @property
    def achieved(self) -> float:
        """FLOP/s of the model on one GPU at the published speed."""
        return self.predicted.flops / self.predicted.seconds / self.ratio


SpeedDone = SpeedCompared | Failed[Timed] | LeftOut


@dataclass
class SpeedComparison:
    """Predicts rows; each distinct Job on each machine once."""

    predictor: Predictor
    heard: Callable[[str], None] = unheard
    """Told of each prediction as it begins."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages that the predictions were made with."""
    _steps: Once[Predicted | str] = field(init=False)

    def __post_init__(self) -> None:
        self._steps = Once(self.predictor, self._numbers, self.heard)

    def compare(self, outcomes: Iterable[SpeedOutcome]) -> list[SpeedDone]:
        """One result for each outcome, in order. Jobs that serve most rows are captured first."""
        found = list(outcomes)
        for case in most_served_first([each for each in found if isinstance(each, Timed)]):
            self._predicted(case)
        return [each if isinstance(each, LeftOut) else self._compared(each) for each in found]

    def _compared(self, case: Timed) -> SpeedCompared | Failed[Timed]:
        answer = self._predicted(case)
        if isinstance(answer, str | MemboundError):
            return Failed(case, str(answer))
        return SpeedCompared(case, catalogue.machine(case.machine).gpu.name, answer)

    def _predicted(self, case: Timed) -> Predicted | str | MemboundError:
        return self._steps.ask(told(case), case.job, machine_of(case), case.options)

    def _numbers(self, run: Run) -> Predicted | str:
        self.versions.update(run.about.get("versions", {}))
        return _numbers(run)


def _numbers(run: Run) -> Predicted | str:
    values = {name: run.values.get(name, Missing("no such value in the prediction")) for name in (STEP, "tokens.rate", "flops.model")}
    for name, value in values.items():
        if isinstance(value, Missing):
            return f"{name}: {value.reason}"
    step, tokens, flops = values.values()
    assert not isinstance(step, Missing)
    assert not isinstance(tokens, Missing)
    assert not isinstance(flops, Missing)
    return Predicted(step.value, step.low, step.high, tokens.value, flops.value)


def most_served_first(cases: list[Timed]) -> list[Timed]:
    """`cases` so that rows of one Job stand together: the exam's groups first, then the Jobs that serve most rows."""
    served = Counter(_job_key(case) for case in cases)
    return sorted(cases, key=lambda case: (case.group not in EXAM, -served[_job_key(case)], list(GROUPS).index(case.group), _job_key(case)))


def _job_key(case: Timed) -> str:
    return json.dumps([case.job.model_dump(mode="json"), dict(case.options)], sort_keys=True)


def outcomes(groups: Iterable[str] = ()) -> list[SpeedOutcome]:
    """The outcome of every published row; of the rows that come to be compared in `groups` only, if any are given."""
    wanted = set(groups)
    found = [mapping.outcome(row) for row in rows.read()]
    return [each for each in found if not wanted or (isinstance(each, Timed) and each.group in wanted)]
