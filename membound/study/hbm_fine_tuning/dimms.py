"""Figures 25a and 25b and Table 3: the host's memory modules against each other."""

from __future__ import annotations

from typing import Final

from membound.report.charts.bars import Bars, BarSeries
from membound.report.charts.data import Amount, Cell, Column
from membound.report.charts.figure import Figure
from membound.report.charts.scale import say
from membound.report.charts.table import Table
from membound.run.schema import Missing
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book, rows

_PANELS: Final = {"Figure 25a": "llama-33b", "Figure 25b": "llama-65b"}
# A memory perspective, Micron, section High-capacity DIMM analysis: 96GB-1DPC over 64GB-2DPC for Llama 33B.
_STATED_33B: Final = {("dimm-64gb-2dpc", "dimm-96gb-1dpc"): 0.02}


def figure(book: Book, label: str) -> Figure:
    """Figure 25a, of Llama 33B, or 25b, of 65B: gain of each configuration over each other."""
    job = _PANELS[label]
    title = f"{books.title(job)}: host memory configurations against each other"
    known = rows("dimms.csv")
    names = {row["machine"]: _name(book, job, row["machine"]) for row in known}
    why = book.without(list(names.values()))
    if why:
        return books.absent(label, title, why)
    times = {machine: _seconds(book, name) for machine, name in names.items()}
    published = {row["machine"]: float(row["seconds"]) for row in known if row["seconds"]}
    series = []
    for row in known:
        panel = row["machine"]
        ours = tuple(_gain(times[panel], times[other["machine"]]) for other in known)
        stated = tuple(_stated(job, panel, other["machine"], published) for other in known)
        series.append(BarSeries(f"over {row['words']}", ours, published=stated))
    return Bars(
        title=title, label=label, unit="1", categories=tuple(row["words"] for row in known), series=tuple(series), says=_says(times, known),
        source="ghost GPU replayed on hgx-h100 with each set of modules; published: Table 3 for 65B, the text for 33B",
        notes=("Positive: the configuration named at the left is faster than the one in the key.", *_impossible(book, names)),
    )  # fmt: skip


def _name(book: Book, job: str, machine: str) -> str:
    """The run of `job` with these modules: ours, or the report's."""
    own = f"{job}.{machine}"
    return own if own in book.plan.points else book.plan.report.get(f"{job}-{machine}", own)


def _seconds(book: Book, name: str) -> float | None:
    return book.number(name, "step.time") if book.runs[name].fits.host else None


def _gain(panel: float | None, other: float | None) -> float | None:
    return None if panel is None or other is None else 1 - other / panel


def _stated(job: str, panel: str, other: str, published: dict[str, float]) -> float | None:
    if job == "llama-33b":
        return _STATED_33B.get((panel, other))
    return _gain(published.get(panel), published.get(other)) if panel != other else None


def _says(times: dict[str, float | None], known: list[dict[str, str]]) -> str:
    found = {row["words"]: time for row in known if (time := times[row["machine"]]) is not None}
    if not found:
        return "None of them holds the job."
    fastest, slowest = min(found, key=lambda word: found[word]), max(found, key=lambda word: found[word])
    apart = say(1 - found[fastest] / found[slowest], "1")
    return f"{fastest} is fastest and {slowest} slowest of {len(found)} that hold the job; the two are {apart} apart."


def _impossible(book: Book, names: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{machine.removeprefix('dimm-')}: {book.runs[name].fits.why}." for machine, name in names.items() if not book.runs[name].fits.host)


def table(book: Book) -> Figure:
    """Table 3: Llama 65B with offload over the modules."""
    heads = ("memory setup", "capacity", "for each GPU", "DDR:HBM", "for each core", "peak use", "training", "step")
    columns = tuple(Column(head) for head in heads)
    known = rows("dimms.csv")
    names = [_name(book, "llama-65b", row["machine"]) for row in known]
    why = book.without(names)
    if why:
        return books.absent("Table 3", "Llama 65B over host memory configurations", why)
    found = [_row(book, row, name) for row, name in zip(known, names, strict=True)]
    fits = [row["words"] for row, name in zip(known, names, strict=True) if book.runs[name].fits.host]
    return Table(
        title="Llama 65B over host memory configurations", label="Table 3", columns=columns, rows=tuple(found),
        says=f"In ours the job fits in {', '.join(fits)}; published times are of whole trainings, whose steps are not told: only ratios compare.",
        source="Table 3 of the report; ours: ghost GPU replayed on each",
        notes=("Before a stroke the report's, after it ours; training is its, step ours.",),
    )  # fmt: skip


def _row(book: Book, row: dict[str, str], name: str) -> tuple[Cell, ...]:
    run, machine = book.runs[name], book.runs[name].machine
    capacity = run.number("host.memory.capacity") or 0.0
    gpus, host = int(run.job["gpus"]), machine["host"]
    # As the report counts: 80 GB for each GPU.
    hbm = gpus * machine["gpu"]["hbm"]["stacks"] * machine["gpu"]["hbm"]["stack_capacity"]
    used = book.number(name, "host.memory.used.peak")
    step = book.number(name, "step.time") if run.fits.host else None
    return (
        row["words"],
        f"{row['capacity']} / {say(capacity, 'B')}",
        f"{row['per_gpu']} / {say(capacity / gpus, 'B')}",
        f"{row['ratio']} / {capacity / hbm:.1f}",
        f"{row['per_core']} GB / {say(capacity / (host['sockets'] * host['cores_per_socket']), 'B')}",
        f"{row['peak_use']} / {'missing' if used is None else say(used / capacity, '1')}",
        f"{row['seconds']} s" if row["seconds"] else row["peak_use"],
        Missing(books.briefly(run.fits.why or "does not fit")) if step is None else Amount(step, "s"),
    )
