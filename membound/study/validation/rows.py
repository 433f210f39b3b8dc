"""Readings that others published: facts, each with the source that prints it."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from importlib import resources

from membound.errors import RecordError


@dataclass(frozen=True)
class Row:
    """One reading, as its source gives it: text where the source has text, None where it is silent."""

    id: str
    source: str
    model: str
    task: str
    gpu: str
    gpus: int | None
    strategy: str
    precision: str
    seq_len: int | None
    """Tokens in a row; None where the source gives none, or rows of different lengths."""
    micro_batch: int | None
    accumulation: int | None
    optimizer: str
    attention: str
    """Attention and other kernels."""
    metric: str
    value: float
    unit: str
    notes: str
    recompute: str
    group: str

    @property
    def kernels(self) -> str:
        """What follows `kernels=` in `attention`."""
        return self.attention.partition("kernels=")[2]


def read(file: str) -> list[Row]:
    """All rows of a file of the studies' data, in its order. Raises `RecordError` if two share an id."""
    text = resources.files("membound.study").joinpath(f"data/{file}").read_text(encoding="utf-8")
    rows = [_row(entry) for entry in csv.DictReader(text.splitlines())]
    twice = {name for name, count in Counter(row.id for row in rows).items() if count > 1}
    if twice:
        raise RecordError(f"{file}: {', '.join(sorted(twice))} stand there twice")
    return rows


def _row(entry: dict[str, str]) -> Row:
    return Row(
        id=entry["id"],
        source=entry["source"],
        model=entry["model"],
        task=entry["task"],
        gpu=entry["gpu"],
        gpus=_count(entry["n_gpus"]),
        strategy=entry["strategy"],
        precision=entry["precision"],
        seq_len=_count(entry["seq_len"]),
        micro_batch=_count(entry["micro_batch"]),
        accumulation=_count(entry["grad_accum"]),
        optimizer=entry["optimizer"],
        attention=entry["attention_impl"],
        metric=entry["metric"],
        value=float(entry["value"]),
        unit=entry["unit"],
        notes=entry["notes"],
        recompute=entry["act_ckpt"],
        group=entry["group"],
    )


def _count(text: str) -> int | None:
    try:
        return int(float(text))
    except ValueError:
        return None
