"""How many steps of a job a measured study runs, and what that takes."""

from __future__ import annotations

import math
from typing import Final

from membound.measure import warm_up
from membound.spec.job import Job

COUNTED: Final = 10.0
"""Time that the counted steps of a job should take together, s: three windows of GPM even where its calls are so dear that they wait for 4 s."""
FEWEST: Final = 3
"""Steps that count at least, where each takes long."""
MOST: Final = 400
"""Steps that count at most."""


def how_long(job: Job, seconds: float | None, asked: int | None) -> int:
    """Optimizer steps of `job` to measure, warm-up included: as many as were `asked` for, or so many that those that count take `COUNTED` s where one
    is predicted to take so many `seconds`."""
    if asked is not None:
        return asked
    return warm_up.steps(job) + (FEWEST if seconds is None else min(max(math.ceil(COUNTED / seconds), FEWEST), MOST))


def expected(job: Job, seconds: float | None, asked: int | None) -> float | None:
    """What measuring `job` is predicted to take after loading, s; None where its step's time is not known."""
    return None if seconds is None else seconds * how_long(job, seconds, asked)
