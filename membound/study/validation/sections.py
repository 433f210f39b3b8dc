"""What the pages of all studies of published rows say alike: how sources were read, and what was left out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from membound.study.markdown import table
from membound.study.validation.answered import Answered
from membound.study.validation.outcome import Case
from membound.study.validation.rows import Row


def readings(cases: Iterable[Case]) -> str:
    """How units were read and what was set where a source is silent, by group of the compared `cases`; empty without any."""
    read: dict[tuple[str, str], None] = {}
    settings: dict[tuple[str, str], None] = {}
    for case in cases:
        read.setdefault((case.group, case.unit))
        settings.update(dict.fromkeys((case.group, text) for text in case.settings))
    parts = ["## How the sources were read", table(("group", "unit"), read), table(("group", "setting"), settings)]
    return "\n\n".join(parts) if read else ""


def left_out(result: Answered[Any, Any]) -> str:
    """Why rows were left out, and how many for each reason; empty without any."""
    lines = [(reason, detail, str(count)) for reason, detail, count in result.reasons()]
    return f"## Left out: {len(result.left_out)} rows\n\n{table(('reason', 'detail', 'rows'), lines)}" if lines else ""


def title(row: Row) -> str:
    """A row in a few words."""
    shape = [f"{row.micro_batch} x {row.seq_len or 'varying'}" if row.micro_batch else "", f"{row.gpus} GPUs" if row.gpus and row.gpus > 1 else ""]
    return ", ".join(word for word in (row.model, row.task, *shape, row.kernels) if word)
