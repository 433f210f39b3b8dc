"""What all published readings have in common, once their source is read: a Job on a machine, or the reason why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from membound.spec import catalogue, fields
from membound.spec.job import Job
from membound.spec.machine import Machine
from membound.study.validation.rows import Row

GIB: Final = 2.0**30
GB: Final = 1e9

MATCHED: Final = "matched"
"""The group of rows whose software computes as the installed one does."""


@dataclass(frozen=True)
class LeftOut:
    """A row that is not predicted, and why: `reason` for counting, `detail` for this row."""

    row: Row
    reason: str
    detail: str = ""


def reasons(left_out: Iterable[LeftOut]) -> list[tuple[str, str, int]]:
    """Why rows are left out: reason, detail, number of rows; most first."""
    counts = Counter((each.reason, each.detail) for each in left_out)
    return [(*why, count) for why, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


class Case(Protocol):
    """A row that a Job can express, whatever it publishes."""

    @property
    def row(self) -> Row:
        """As its source gives it."""

    @property
    def job(self) -> Job:
        """The Job that expresses it."""

    @property
    def machine(self) -> str:
        """Catalogue name."""

    @property
    def machine_changes(self) -> Mapping[str, object]:
        """Fields of the machine that the source states otherwise, dotted."""

    @property
    def group(self) -> str:
        """Whose rows it is counted with."""

    @property
    def unit(self) -> str:
        """How the printed unit was read, and why."""

    @property
    def settings(self) -> tuple[str, ...]:
        """What was set where the source is silent or the installed software differs, each with its reason."""


def told(case: Case) -> str:
    """A row in a few words, for who waits."""
    return f"{case.row.id}: {case.row.model}, {case.row.task}, {case.row.gpu}"


def machine_of(case: Case) -> Machine:
    """The machine of `case` as its source states it, the part that the Job uses."""
    found = catalogue.machine(case.machine)
    if case.machine_changes:
        found = fields.with_values(found, dict(case.machine_changes), "machine")
    return found.with_gpus(case.job.gpus)


def job(model: str, seq_len: int, gpus: int, recipe: Mapping[str, Any]) -> Job:
    """A checked Job over fixed rows."""
    return fields.read(Job, {"model": model, "data": {"seq_len": seq_len}, "gpus": gpus, "recipe": dict(recipe)})


def machine(gpu: str, gpus: int) -> str | None:
    """The catalogue's machine for what a source calls `gpu`, None if there is none."""
    for start, (lone, several) in _MACHINES.items():
        if gpu.startswith(start):
            return lone if gpus == 1 else several
    return None


def known_machine(gpu: str, gpus: int) -> str:
    """As `machine`, of a source whose GPUs are all in the catalogue."""
    found = machine(gpu, gpus)
    assert found is not None, gpu
    return found


# By the source's words; a lone GPU, and the machine for several.
_MACHINES: Final[dict[str, tuple[str, str]]] = {
    "A100-SXM-80GB": ("a100-sxm-80gb", "hgx-a100-80gb"),
    "A100-SXM-40GB": ("a100-sxm-40gb", "hgx-a100-40gb"),
    "A100-40GB": ("a100-sxm-40gb", "hgx-a100-40gb"),
    "A100 (80GB": ("a100-sxm-80gb", "hgx-a100-80gb"),
    "H100-SXM-80GB": ("h100-sxm", "hgx-h100"),
    "H200-SXM-141GB": ("h200", "hgx-h200"),
    "24GB class": ("rtx-3090", "rtx-3090-x2"),
}
