"""Prediction against Runs that we measured ourselves: time, traffic, power and memory of the same Jobs on the same machine.

Reads what `validation/measure_jobs.py` writes: one Run's document per line. A job that was measured again stands in the later file.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from membound.errors import MemboundError, RecordError
from membound.spec import catalogue, fields
from membound.spec.job import Job
from membound.study.predicting import Predictor

QUANTITIES: Final = (
    "step.time", "gpu.memory.allocated.peak", "gpu.memory.reserved.peak", "gpu.memory.used.peak", "hbm.utilisation.mean", "gpu.power.mean",
    "gpu.busy",
)  # fmt: skip
"""What is compared."""

# The runs that ship were made on the very kind of virtual machine that launch costs were measured on.
_HOST: Final[dict[str, object]] = {"host.call_time": 1.0}

BUSY: Final = 0.9
"""Share of time with a kernel running from which a run is bound by its GPU: below, by how fast the host launches."""


@dataclass(frozen=True)
class OwnRun:
    """One measured Job: (measured, predicted, low, high) by quantity, in SI units."""

    name: str
    file: str
    versions: dict[str, str]
    gpu: str
    pairs: dict[str, tuple[float, float, float, float]]
    why: str | None = None
    """Why there is nothing to compare."""

    def ratio(self, quantity: str) -> float | None:
        """Predicted over measured."""
        if quantity not in self.pairs:
            return None
        measured, predicted, _, _ = self.pairs[quantity]
        return predicted / measured if measured else None

    @property
    def bound_by_gpu(self) -> bool:
        """Whether the measured GPU hardly ever waited for its host."""
        return self.pairs.get("gpu.busy", (0.0,))[0] >= BUSY


@dataclass(frozen=True)
class Errors:
    """Relative errors of one quantity over some runs."""

    count: int
    mean: float
    median: float
    worst: float
    """Signed."""
    inside: int
    """Runs whose measured value lies within the predicted band."""


def compare(folder: Path, predictor: Predictor, heard: Callable[[str], None]) -> list[OwnRun]:
    """All measured Jobs in `folder`/results*.jsonl, predicted. Raises `RecordError` for files that hold something else."""
    latest = {record["name"]: (record, file) for file in sorted(folder.glob("results*.jsonl")) for record in _records(file)}
    return [_compared(record, file, predictor, heard) for record, file in latest.values()]


def errors(runs: list[OwnRun], quantity: str) -> Errors | None:
    """How far `quantity` is off over `runs`; None where none has it."""
    known = [run for run in runs if run.ratio(quantity) is not None]
    off = [(run.ratio(quantity) or 1.0) - 1 for run in known]
    if not off:
        return None
    inside = sum(low <= measured <= high for measured, _, low, high in (run.pairs[quantity] for run in known))
    sizes = [abs(each) for each in off]
    return Errors(len(off), statistics.mean(sizes), statistics.median(sizes), max(off, key=abs), inside)


def _records(file: Path) -> Iterator[dict[str, Any]]:
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["run"]["origin"] == "measured":
                yield record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{file}: not documents of measured Runs ({error})") from None


def _compared(record: dict[str, Any], file: Path, predictor: Predictor, heard: Callable[[str], None]) -> OwnRun:
    document, name = record["run"], str(record["name"])
    about = document.get("about", {})
    versions = {package: str(version) for package, version in about.get("versions", {}).items()}
    gpu = next((str(rank.get("gpu")) for rank in about.get("ranks", {}).values()), "")
    if not isinstance(document["values"].get("step.time", {}).get("value"), float):
        how = about.get("ended", {}).get("said") or about.get("ended", {}).get("how") or "no step was timed"
        return OwnRun(name, file.name, versions, gpu, {}, str(how))
    heard(f"measured: {name}")
    try:
        job = fields.read(Job, document["job"])
        machine = fields.with_values(catalogue.machine(document["machine"]["name"]), _HOST, "machine").with_gpus(job.gpus)
        predicted = predictor.predict(job, machine).run.document()["values"]
    except MemboundError as error:
        return OwnRun(name, file.name, versions, gpu, {}, str(error))
    pairs = {quantity: _pair(document["values"].get(quantity, {}), predicted.get(quantity, {})) for quantity in QUANTITIES}
    return OwnRun(name, file.name, versions, gpu, {quantity: pair for quantity, pair in pairs.items() if pair is not None})


def _pair(measured: dict[str, Any], predicted: dict[str, Any]) -> tuple[float, float, float, float] | None:
    if "value" not in measured or "value" not in predicted:
        return None
    return float(measured["value"]), float(predicted["value"]), float(predicted["low"]), float(predicted["high"])
