"""How well the laws of kernels know what was measured: each point predicted from the others, each GPU from another, and H200 from H100.

Kernels and links only; no training run is looked at.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from membound import __version__
from membound.cost import attention_table, collectives, matmul
from membound.cost.law import Array
from membound.errors import StorageError

SCHEMA: Final = 1
# For each measured GPU the one that would stand for it, had it not been measured.
_OTHERS: Final = {"a100": "h100", "h100": "h200", "h200": "h100", "b200": "h200", "l40s": "a100"}
# Bins of arithmetic intensity, FLOP/B, and the shortest matmuls that are compared, s: as the measurements' own comparison of H100 and H200 has them.
_BINS: Final = (0, 50, 100, 150, 200, 250, 300, 400, 600, 1200, 1e9)
_SHORTEST: Final = 50e-6
# What is asked of the laws, as median relative error.
TARGETS: Final = {"matmul": 0.05, "attention forward": 0.03, "collectives": 0.10}


@dataclass(frozen=True)
class Error:
    """Relative error of predictions over measurements."""

    law: str
    gpu: str
    left_out: str
    """What the predictor did not see."""
    count: int
    median: float
    mean: float
    p90: float
    bias: float
    """exp of the mean logarithm of predicted over measured, less 1."""


@dataclass(frozen=True)
class Bin:
    """Median speed-up of identical matmuls from H100 to H200 in a bin of arithmetic intensity: measured on both, and predicted from H100 alone."""

    low: float
    high: float
    count: int
    measured: float
    predicted: float


@dataclass(frozen=True)
class Calibration:
    """All errors, and the bins."""

    errors: tuple[Error, ...]
    bins: tuple[Bin, ...]

    def of(self, law: str, left_out: str) -> list[Error]:
        """Errors of one law, one for each GPU."""
        return [error for error in self.errors if (error.law, error.left_out) == (law, left_out)]


def run() -> Calibration:
    """Predict every measured kernel from the others; some seconds."""
    return Calibration((*_matmuls(), *_attention(), *_collectives()), tuple(speed_ups()))


def _matmuls() -> Iterator[Error]:
    for gpu, other in _OTHERS.items():
        table = matmul.measured_efficiency(gpu)
        yield _error("matmul", gpu, "point", table.without_each((0, 1, 2)) - table.values)
        yield _error("matmul", gpu, "n and k", table.without_each((1, 2)) - table.values)
        yield _error("matmul", gpu, f"GPU ({other} instead)", matmul.efficiency(other).values - table.values)


def _attention() -> Iterator[Error]:
    for board in attention_table.SPEEDS:
        residuals = [attention_table.residual(board, int(width)) for width in np.unique(attention_table.measured(board).width)]
        yield _error("attention forward", board, "point", np.concatenate([(t.without_each((0, 2)) - t.values).ravel() for t in residuals]))
        yield _error("attention forward", board, "all (law alone)", np.concatenate([-t.values.ravel() for t in residuals]))


def _collectives() -> Iterator[Error]:
    for board, other in _OTHERS.items():
        tables = [collectives.table(board, kind) for kind in collectives.KINDS]
        yield _error("collectives", board, "point", np.concatenate([(t.without_each((1,)) - t.values)[:, 1:-1].ravel() for t in tables]))
        others = [collectives.moved_to(board, other, kind) for kind in collectives.KINDS]
        guesses = np.concatenate([(guess - table.values).ravel() for guess, table in zip(others, tables, strict=True)])
        yield _error("collectives", board, f"board ({other} instead)", guesses)


def _error(law: str, gpu: str, left_out: str, logarithms: Array) -> Error:
    """From ln(predicted / measured), NaN where nothing was measured."""
    known = logarithms[~np.isnan(logarithms)]
    relative = np.abs(np.expm1(known))
    middle, high = np.median(relative), np.quantile(relative, 0.9)
    return Error(law, gpu, left_out, len(known), float(middle), float(relative.mean()), float(high), float(np.expm1(known.mean())))


def speed_ups() -> Iterator[Bin]:
    """H100 to H200: measured on both, and predicted from the H100's measurements with the H200's bandwidth."""
    table = matmul.measured_efficiency("h100")
    m, n, k = (axis.reshape([-1 if i == at else 1 for i in range(3)]) for at, axis in enumerate(table.axes))
    before, after = (matmul.measured_roofline(m, n, k, matmul.reference(gpu)).seconds for gpu in ("h100", "h200"))
    slow = np.exp(table.values) * before
    fast = np.exp(matmul.measured_efficiency("h200").values) * after
    intensity = m * n * k / (m * k + k * n + m * n) * np.ones(slow.shape)
    with np.errstate(invalid="ignore"):
        compared = (slow > _SHORTEST) & ~np.isnan(fast)
    for low, high in itertools.pairwise(_BINS):
        chosen = compared & (intensity >= low) & (intensity < high)
        measured, predicted = (float(np.median((slow / new)[chosen])) for new in (fast, np.exp(table.values) * after))
        yield Bin(low, high, int(chosen.sum()), measured, predicted)


def document(result: Calibration) -> dict[str, Any]:
    """As `--json` prints it. Errors are relative (0.05 is 5 %)."""
    errors, bins = ([asdict(each) for each in rows] for rows in (result.errors, result.bins))
    return {"schema": SCHEMA, "version": __version__, "errors": errors, "h100_to_h200": bins}


def write(result: Calibration, folder: Path) -> None:
    """`calibration.json`, and both tables as CSV. Raises `StorageError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "calibration.json").write_text(json.dumps(document(result), indent=1) + "\n", encoding="utf-8")
        for name, rows in (("errors", [asdict(e) for e in result.errors]), ("h100_to_h200", [asdict(b) for b in result.bins])):
            with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows)
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror}: name another folder with --out") from error
