"""What a study asks of a predictor: each distinct Job on each machine once, and what one of them meets stops no other."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from membound.errors import MemboundError
from membound.run.schema import Run
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.study.predicting import Predictor

T = TypeVar("T")


@dataclass(frozen=True)
class Once(Generic[T]):
    """Predictions, each made when it is first asked for."""

    predictor: Predictor
    kept: Callable[[Run], T]
    """What of a Run is kept: thousands of whole ones are many gigabytes."""
    heard: Callable[[str], None]
    """Told of each prediction as it begins."""
    _known: dict[str, T | MemboundError] = field(default_factory=dict)

    def ask(self, what: str, job: Job, machine: Machine, options: Mapping[str, Any] | None = None) -> T | MemboundError:
        """What is kept of the Run of `job` on `machine`, or why there is none; `what` is what is told of it, `options` are `Predictor.predict`'s."""
        asked = [job.model_dump(mode="json"), machine.model_dump(mode="json"), dict(options or {})]
        key = json.dumps(asked, sort_keys=True)
        if key not in self._known:
            self.heard(what)
            try:
                self._known[key] = self.kept(self.predictor.predict(job, machine, options).run)
            # The study goes on: what one Job meets is a result about that Job.
            except MemboundError as error:
                self._known[key] = error
        return self._known[key]


def unheard(what: str) -> None:
    """Hears nothing."""
