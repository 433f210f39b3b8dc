"""What the study of published speeds found, as values, tables and files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from membound import __version__, folders
from membound.study.validation.answered import Answered, flat
from membound.study.validation.speed import statistics
from membound.study.validation.speed.comparison import SpeedCompared, SpeedDone
from membound.study.validation.speed.outcome import Timed
from membound.study.validation.speed.statistics import Key, Repeat

SCHEMA: Final = 1


@dataclass(frozen=True)
class SpeedResult(Answered[SpeedCompared, Timed]):
    """Every published row with its outcome, and the recipes that others measured twice."""

    repeats: tuple[Repeat, ...] = ()

    def failures(self) -> list[tuple[str, list[str]]]:
        """Why rows failed: the error and the rows that met it; most first."""
        rows: dict[str, list[str]] = {}
        for each in self.failed:
            rows.setdefault(each.error, []).append(each.case.row.id)
        return sorted(rows.items(), key=lambda item: (-len(item[1]), item[0]))

    def misses(self) -> list[SpeedCompared]:
        """Rows further off than the exam allows one row in ten to be, the furthest first."""
        far = [each for each in self.compared if abs(each.ratio - 1) > statistics.TAIL_LIMIT]
        return sorted(far, key=lambda each: abs(each.ratio - 1), reverse=True)


def write(result: SpeedResult, folder: Path, page: str) -> None:
    """Write rows.parquet, validation.json and validation.md as `folder`. Raises `StorageError`."""
    with folders.whole(folder, replace=True) as draft:
        pq.write_table(table(result.done), draft / "rows.parquet", compression="zstd")
        (draft / "validation.json").write_text(json.dumps(document(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (draft / "validation.md").write_text(page, encoding="utf-8")


def table(done: Sequence[SpeedDone]) -> pa.Table:
    """One row for each published row; `published` and `predicted` are in the quantity's unit."""
    return pa.Table.from_pylist([_flat(each) for each in done], schema=_COLUMNS)


def document(result: SpeedResult) -> dict[str, Any]:
    """The whole as JSON."""
    overall = statistics.overall(result.done)
    return {
        "schema": SCHEMA,
        "membound": __version__,
        "versions": result.versions,
        "limits": {"mean": statistics.MEAN_LIMIT, "tail": statistics.TAIL_LIMIT, "bias": statistics.BIAS_LIMIT},
        "groups": [_group(key, each) for key, each in statistics.by_group(result.done).items()],
        "overall": None if overall is None else _group(("all", "all", "all"), overall),
        "floor": [{"first": each.first.id, "second": each.second.id, "difference": each.difference} for each in result.repeats],
        "left_out": [{"reason": reason, "detail": detail, "rows": count} for reason, detail, count in result.reasons()],
        "failed": [{"error": error, "rows": rows} for error, rows in result.failures()],
        "rows": [_flat(each) for each in result.done],
    }


def _group(key: Key, errors: statistics.GroupErrors) -> dict[str, Any]:
    return {"group": key[0], "method": key[1], "gpu": key[2], "met": errors.met, **asdict(errors)}


_COLUMNS: Final = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "outcome", "group", "method", "gpu", "quantity", "job", "reason", "detail", "unit")]
    + [(name, pa.float64()) for name in ("published", "predicted", "ratio", "rounding", "low_s", "high_s", "achieved_FLOP/s")]
    + [("inside", pa.bool_()), ("settings", pa.list_(pa.string()))]
)


def _flat(each: SpeedDone) -> dict[str, Any]:
    return flat(each, _COLUMNS.names, _flat_case, _flat_compared)


def _flat_case(case: Timed) -> dict[str, Any]:
    changes = {"machine": case.machine, "machine_changes": dict(case.machine_changes), "options": dict(case.options)}
    return {
        "group": case.group, "method": case.job.recipe.method, "quantity": case.quantity, "unit": case.unit, "published": case.published,
        "rounding": case.rounding, "settings": list(case.settings), "job": json.dumps({**case.job.model_dump(mode="json"), **changes}),
    }  # fmt: skip


def _flat_compared(each: SpeedCompared) -> dict[str, Any]:
    return {
        **_flat_case(each.case), "gpu": each.gpu, "predicted": each.value, "ratio": each.ratio, "inside": each.inside,
        "low_s": each.predicted.low, "high_s": each.predicted.high, "achieved_FLOP/s": each.achieved,
    }  # fmt: skip
