"""Prediction against what others measured and published, row by row; nothing left out in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from membound.errors import MemboundError
from membound.run.schema import Run
from membound.study.once import Once, unheard
from membound.study.predicting import Predictor
from membound.study.validation.answered import Failed
from membound.study.validation.memory import mapping, rows
from membound.study.validation.memory.outcome import HOST, Comparable, Outcome
from membound.study.validation.outcome import LeftOut, machine_of, told


@dataclass(frozen=True)
class Compared:
    """A row beside its prediction."""

    case: Comparable
    predicted: float
    """The row's quantity, B."""
    used: float
    """What the driver would show of one GPU, or the node's host memory where the row is about the host, B."""
    capacity: float
    """Of that memory, B."""
    fits: bool
    """The verdict on that memory."""

    @property
    def ratio(self) -> float | None:
        """Predicted over published; None where the row is a verdict."""
        return self.predicted / self.case.published if self.case.published is not None else None

    @property
    def label(self) -> bool | None:
        """The verdict that was published."""
        return self.case.host_fits if self.on_host else self.case.fits

    @property
    def on_host(self) -> bool:
        """Whether the row is about host memory."""
        return self.case.quantity == HOST

    @property
    def spare(self) -> float:
        """Share of the memory that the prediction leaves free; below 0 where it does not fit."""
        return 1 - self.used / self.capacity


Done = Compared | Failed[Comparable] | LeftOut


@dataclass
class Comparison:
    """Predicts rows; each distinct Job on each machine once."""

    predictor: Predictor
    heard: Callable[[str], None] = unheard
    """Told of each prediction as it begins."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages that the predictions were made with."""
    _runs: Once[Run] = field(init=False)

    def __post_init__(self) -> None:
        self._runs = Once(self.predictor, self._noted, self.heard)

    def compare(self, outcomes: Iterable[Outcome]) -> list[Done]:
        """One result for each outcome, in order."""
        return [outcome if isinstance(outcome, LeftOut) else self._compared(outcome) for outcome in outcomes]

    def _compared(self, case: Comparable) -> Compared | Failed[Comparable]:
        run = self._runs.ask(told(case), case.job, machine_of(case), case.options)
        if isinstance(run, MemboundError):
            return Failed(case, str(run))
        memory = "host" if case.quantity == HOST else "gpu"
        predicted, used, capacity = (run.number(name) for name in (case.quantity, f"{memory}.memory.used.peak", f"{memory}.memory.capacity"))
        assert predicted is not None
        assert used is not None
        assert capacity is not None
        return Compared(case, predicted, used, capacity, run.fits.host if memory == "host" else run.fits.gpu)

    def _noted(self, run: Run) -> Run:
        self.versions.update(run.about["versions"])
        return run


def outcomes(groups: Iterable[str] = ()) -> list[Outcome]:
    """The outcome of every published row; of the rows that come to be compared in `groups` only, if any are given."""
    wanted = set(groups)
    found = [mapping.outcome(row) for row in rows.read()]
    return [each for each in found if not wanted or (isinstance(each, Comparable) and each.group in wanted)]
