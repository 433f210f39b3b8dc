"""What the validation study found, as values, tables and files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from membound import __version__, folders
from membound.study.validation.answered import Answered, flat
from membound.study.validation.memory import statistics
from membound.study.validation.memory.comparison import Compared, Done
from membound.study.validation.memory.measured import PAIRS, Measured
from membound.study.validation.memory.outcome import ALLOCATED, Comparable
from membound.study.validation.outcome import MATCHED

SCHEMA: Final = 1


@dataclass(frozen=True)
class Result(Answered[Compared, Comparable]):
    """Every published row with its outcome, and every measured run beside its prediction."""

    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class Mark:
    """One criterion of the exam and how it went."""

    criterion: str
    limit: str
    found: str
    passed: bool


def marks(result: Result) -> list[Mark]:
    """The exam: allocated peak where the software matches, verdicts, and our own measurements."""
    found = []
    matched = statistics.by_group(result.done).get((MATCHED, ALLOCATED))
    if matched is not None:
        share, limits = f"{matched.count} rows", (statistics.MEDIAN_LIMIT, statistics.WORST_LIMIT)
        found.append(
            Mark(
                f"allocated peak, software matched, median error ({share})", f"{limits[0]:.0%}", f"{matched.median:.2%}", matched.median <= limits[0]
            )
        )
        found.append(
            Mark(
                f"allocated peak, software matched, worst error ({share})",
                f"{limits[1]:.0%}",
                f"{matched.worst:+.2%}",
                abs(matched.worst) <= limits[1],
            )
        )
    told = statistics.verdicts(result.done)
    if told.runs:
        limit = f"at least {statistics.VERDICT_LIMIT:.0%}"
        found.append(Mark(f"fits or not, all groups ({told.runs} runs)", limit, f"{told.share:.1%}", told.share >= statistics.VERDICT_LIMIT))
        found.append(Mark(f"said to fit with {statistics.SPARE:.0%} to spare, did not", "none", str(len(told.grave)), not told.grave))
    return found


def own(measured: Iterable[Measured]) -> dict[str, statistics.Errors]:
    """Errors against our own measurements, by key of `PAIRS`."""
    runs = list(measured)
    ratios = {key: [ratio for run in runs if (ratio := run.ratio(key)) is not None] for key in PAIRS}
    return {key: statistics.errors(values) for key, values in ratios.items() if values}


def table(done: Sequence[Done]) -> pa.Table:
    """One row for each published row."""
    return pa.Table.from_pylist([_flat(each) for each in done], schema=_COLUMNS)


def write(result: Result, folder: Path, page: str) -> None:
    """Write rows.parquet, measured.parquet, validation.json and validation.md as `folder`. Raises `StorageError`."""
    with folders.whole(folder, replace=True) as draft:
        pq.write_table(table(result.done), draft / "rows.parquet", compression="zstd")
        pq.write_table(pa.Table.from_pylist([_flat_measured(each) for each in result.measured], schema=_MEASURED), draft / "measured.parquet")
        (draft / "validation.json").write_text(json.dumps(document(result), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        (draft / "validation.md").write_text(page, encoding="utf-8")


def document(result: Result) -> dict[str, Any]:
    """The whole as JSON."""
    told = statistics.verdicts(result.done)
    return {
        "schema": SCHEMA,
        "membound": __version__,
        "versions": result.versions,
        "exam": [asdict(mark) for mark in marks(result)],
        "groups": [{"group": key[0], "quantity": key[1], **asdict(each)} for key, each in statistics.by_group(result.done).items()],
        "verdicts": {
            "runs": told.runs, "right": told.right,
            "false_fits": [each.case.row.id for each in told.false_fits], "false_misfits": [each.case.row.id for each in told.false_misfits],
        },
        "left_out": [{"reason": reason, "detail": detail, "rows": count} for reason, detail, count in result.reasons()],
        "rows": [_flat(each) for each in result.done],
        "measured": [_flat_measured(each) for each in result.measured],
    }  # fmt: skip


_COLUMNS: Final = pa.schema(
    [(name, pa.string()) for name in ("id", "source", "outcome", "group", "quantity", "job", "machine", "reason", "detail", "unit")]
    + [(name, pa.float64()) for name in ("published_B", "predicted_B", "ratio", "capacity_B", "spare")]
    + [("fits_published", pa.bool_()), ("fits_predicted", pa.bool_()), ("settings", pa.list_(pa.string()))]
)
_MEASURED: Final = pa.schema(
    [(name, pa.string()) for name in ("name", "file", "torch", "error")]
    + [(f"{key}_{kind}_B", pa.float64()) for key in PAIRS for kind in ("measured", "predicted")]
)


def _flat(each: Done) -> dict[str, Any]:
    return flat(each, _COLUMNS.names, _flat_case, _flat_compared)


def _flat_compared(each: Compared) -> dict[str, Any]:
    return {
        **_flat_case(each.case), "predicted_B": each.predicted, "ratio": each.ratio, "capacity_B": each.capacity, "spare": each.spare,
        "fits_published": each.label, "fits_predicted": each.fits,
    }  # fmt: skip


def _flat_case(case: Comparable) -> dict[str, Any]:
    return {
        "group": case.group, "quantity": case.quantity, "machine": case.machine, "unit": case.unit, "settings": list(case.settings),
        "job": json.dumps({**case.job.model_dump(mode="json"), "options": dict(case.options), "machine_changes": dict(case.machine_changes)}),
        "published_B": case.published,
    }  # fmt: skip


def _flat_measured(each: Measured) -> dict[str, Any]:
    values = {f"{key}_measured_B": each.measured.get(key) for key in PAIRS} | {f"{key}_predicted_B": each.predicted.get(key) for key in PAIRS}
    return {"name": each.name, "file": each.file, "torch": each.environment.get("torch"), "error": each.error, **values}
