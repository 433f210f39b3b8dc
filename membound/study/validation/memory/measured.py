"""Prediction against our own measurements: records of `validation/measure_memory.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from membound.errors import MemboundError, RecordError
from membound.spec import catalogue, fields
from membound.spec.job import Job
from membound.study.predicting import Predictor

PAIRS = {"allocated": "gpu.memory.allocated.peak", "active": "gpu.memory.active.peak", "reserved": "gpu.memory.reserved.peak"}
"""Keys of a record and the quantities that they are compared with."""


@dataclass(frozen=True)
class Measured:
    """One measured run: bytes measured and predicted, by key of `PAIRS`."""

    name: str
    file: str
    environment: dict[str, str | None]
    measured: dict[str, float]
    predicted: dict[str, float]
    error: str | None = None
    """Why there is no prediction, or no measurement."""

    def ratio(self, key: str) -> float | None:
        """Predicted over measured."""
        return self.predicted[key] / self.measured[key] if key in self.predicted and key in self.measured else None


def compare(folder: Path, machine: str, predictor: Predictor, heard: Callable[[str], None]) -> list[Measured]:
    """All records of `folder`/memory*.jsonl, predicted on `machine`. Raises `RecordError` for a file that holds something else."""
    return [_compared(record, file, machine, predictor, heard) for file in sorted(folder.glob("memory*.jsonl")) for record in _records(file)]


def _records(file: Path) -> Iterator[dict[str, Any]]:
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.strip():
                record = json.loads(line)
                if record["mode"] == "gpu":
                    yield record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{file}: not records of measured runs ({error})") from None


def _compared(record: dict[str, Any], file: Path, machine: str, predictor: Predictor, heard: Callable[[str], None]) -> Measured:
    name, environment = str(record["name"]), dict(record["environment"])
    measured = {key: float(record[key]) for key in PAIRS if key in record}
    if "invalid" in record:  # the run did not do what its job asks; the record says why
        return Measured(name, file.name, environment, {}, {}, f"not comparable: {record['invalid']}")
    if "error" in record:
        return Measured(name, file.name, environment, {}, {}, str(record["error"]).strip().splitlines()[-1][:300])
    heard(f"measured: {name}")
    try:
        job = fields.read(Job, record["job"])
        run = predictor.predict(job, catalogue.machine(machine).with_gpus(job.gpus)).run
    except MemboundError as error:
        return Measured(name, file.name, environment, measured, {}, str(error))
    return Measured(name, file.name, environment, measured, {key: run.number(quantity) or 0.0 for key, quantity in PAIRS.items()})
