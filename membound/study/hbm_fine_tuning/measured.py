"""What was measured on this machine, beside what was predicted of the same jobs on it."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from membound.report.charts.data import Cell, Column, Noted
from membound.report.charts.scale import say
from membound.report.charts.table import Table
from membound.run.schema import Missing, Run, Value
from membound.study.hbm_fine_tuning.book import Book
from membound.study.hbm_fine_tuning.measurements import first_counted

_COLUMNS: Final = {
    "step.time": "step", "gpu.memory.used.peak": "GPU memory", "host.memory.used.peak": "host memory",
    "hbm.utilisation.mean": "HBM bandwidth", "gpu.busy": "GPU busy", "gpu.power.mean": "power",
}  # fmt: skip


def table(book: Book) -> Table:
    """Every measured run beside its prediction."""
    found = tuple((Noted(book.plan.points[name].title, name), *_cells(book, name, run)) for name, run in _once(book).items())
    return Table(
        title="Measured on this machine, beside predicted", label="Table M", columns=tuple(map(Column, ("run", *_COLUMNS.values()))), rows=found,
        source="measured: sensors as each run's own page names them; predicted: the same job on the catalogue's entry of this machine",
        says=_says(book), notes=("Each run is a folder beside this page: membound report DIR/runs/NAME.measured DIR/runs/NAME.",),
    )  # fmt: skip


def _once(book: Book) -> dict[str, Run]:
    """Each measured Run under the first of its names."""
    found: dict[int, str] = {}
    for name, run in book.measured.items():
        found.setdefault(id(run), name)
    return {name: book.measured[name] for name in found.values()}


def _cells(book: Book, name: str, run: Run) -> tuple[Cell, ...]:
    predicted = {} if name not in book.runs else book.runs[name].values
    return tuple(_UNLIKE if _unlike(quantity, run) else _cell(run.values.get(quantity), predicted.get(quantity)) for quantity in _COLUMNS)


_UNLIKE: Final = Noted("not compared", "weights were made on the GPU: the host's part in loading them, which is predicted, was not there")


def _unlike(quantity: str, run: Run) -> bool:
    return quantity == "host.memory.used.peak" and run.about.get("options", {}).get("weights") == "gpu"


def _cell(measured: Value | Missing | None, predicted: Value | Missing | None) -> Cell:
    if not isinstance(measured, Value):
        return measured
    if not isinstance(predicted, Value):
        return Noted(say(measured.value, measured.unit), "predicted: missing")
    ratio = f", x {predicted.value / measured.value:.2f}" if measured.value else ""
    return Noted(say(measured.value, measured.unit), f"predicted {say(predicted.value, predicted.unit)}{ratio}")


def _says(book: Book) -> str:
    ratios = [
        ours / theirs
        for name, run in _once(book).items()
        if (ours := book.number(name, "step.time")) is not None and (theirs := run.number("step.time"))
    ]
    number = len(_once(book))
    done = f"{number} job{'s were' if number != 1 else ' was'} measured"
    if not ratios:
        return f"{done}; none of them has a step time on both sides."
    off = statistics.mean(abs(each - 1) for each in ratios)
    return f"{done}; predicted step times are off by {say(off, '1')} in the mean of {len(ratios)}."


def steady(run: Run, seconds: float) -> Run:
    """`run` from its first counted step on, for so many s: what a prediction shows. As it is where no step was marked."""
    begin = first_counted(run)
    if begin is None:
        return run
    tables = {name: _cut(table, begin, begin + seconds) for name, table in run.tables.items() if "time" in table.column_names}
    if "marks" in run.tables:
        tables["marks"] = _shifted(run.tables["marks"], begin, begin + seconds)
    return dataclasses.replace(run, tables={**run.tables, **tables})


def _cut(table: pa.Table, begin: float, end: float) -> pa.Table:
    time = table.column("time")
    kept = table.filter(pc.and_(pc.greater_equal(time, begin), pc.less(time, end)))
    return kept.set_column(kept.column_names.index("time"), "time", pc.subtract(kept.column("time"), begin))


def _shifted(marks: pa.Table, begin: float, end: float) -> pa.Table:
    kept = marks.filter(pc.and_(pc.greater_equal(marks.column("start"), begin), pc.less(marks.column("start"), end)))
    for name in ("start", "end"):
        kept = kept.set_column(kept.column_names.index(name), kept.schema.field(name), pc.subtract(kept.column(name), begin))
    return kept
