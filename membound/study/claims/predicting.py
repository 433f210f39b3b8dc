"""Our Runs of the report's experiments, under its own settings where it states them and over the plausible ones where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from membound.errors import MemboundError
from membound.run.schema import Run
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.study.claims import published
from membound.study.once import Once, unheard
from membound.study.predicting import Predictor


@dataclass(frozen=True)
class ReportRuns:
    """What `claims.agreement` is given."""

    runs: dict[str, Run]
    """By the report's ids."""
    variants: dict[tuple[str, str], Run]
    """By id and name of the setting."""
    failed: dict[str, str]
    """Why an experiment, or 'experiment: setting', has no Run."""


@dataclass
class ReportPredictor:
    """Predicts the report's experiments; each distinct Job on each machine once."""

    predictor: Predictor
    heard: Callable[[str], None] = unheard
    """Told of each prediction as it begins."""
    _runs: Once[Run] = field(init=False)

    def __post_init__(self) -> None:
        self._runs = Once(self.predictor, lambda run: run, self.heard)

    def predict(self, settings: bool = True) -> ReportRuns:
        """All experiments; under the plausible settings too, unless `settings` is False. One that fails does not stop the others."""
        found = ReportRuns({}, {}, {})
        for name, experiment in published.experiments().items():
            self._add(found, name, None, experiment.job, experiment.machine)
            for setting in experiment.settings if settings else ():
                self._add(found, name, setting.name, experiment.variant(setting), experiment.machine)
        return found

    def _add(self, found: ReportRuns, name: str, setting: str | None, job: Job, machine: Machine) -> None:
        what = name if setting is None else f"{name}: {setting}"
        run = self._runs.ask(what, job, machine)
        if isinstance(run, MemboundError):
            found.failed[what] = str(run)
        elif setting is None:
            found.runs[name] = run
        else:
            found.variants[name, setting] = run
