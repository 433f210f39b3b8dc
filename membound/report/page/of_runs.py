"""A page from any Runs: verdict, values, curves over time, and whatever tables they hold. Never asks who made a Run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pyarrow as pa

from membound.report import naming
from membound.report.charts import run_values
from membound.report.charts.data import Cell, Column
from membound.report.charts.figure import Figure
from membound.report.charts.prose import Prose
from membound.report.charts.run_figures import over_time
from membound.report.charts.scale import between, say
from membound.report.charts.table import Table
from membound.report.inert import inert
from membound.report.page.memory_figure import memory_over_program
from membound.report.page.page import Fact, Page, Section, Verdict
from membound.run.schema import Run, Value
from membound.run.series import CURVES

# What the header shows of each Run, where it is known.
_KEY: Final = {
    "step.time": "step time",
    "tokens.rate": "tokens fed",
    "gpu.memory.used.peak": "GPU memory, peak",
    "host.memory.used.peak": "host memory, peak",
    "hbm.utilisation.mean": "HBM bandwidth used",
    "gpu.busy": "GPU busy",
    "gpu.power.mean": "GPU power",
    "gpu.temperature.peak": "GPU, hottest",
}
_DRAWN: Final = frozenset({"gpu", "host", "marks", "curves", "memory.timeline"})
_KEYS_OF_SERIES: Final = frozenset({"time", "gpu", "node", "throttle"})
# Rows of another table that a page carries, and that it shows.
_MOST_ROWS: Final = 2000
_SHOWN_ROWS: Final = 25


def page(runs: Mapping[str, Run], title: str = "") -> Page:
    """The page of `runs` by label. Raises `RecordError` for series that cannot be drawn."""
    about = Table(title="What was run", columns=(Column("key"), *(Column(label) for label in runs)), rows=tuple(_about(runs)))
    sections = (
        Section("Values", tuple(_values(runs))),
        Section("Over time", tuple(_time(runs)), _lead(runs)),
        Section("Memory over the program", tuple(memory_over_program(runs)), "In the order in which the program runs its operations, not in time."),
        Section("Tables", tuple(_tables(runs))),
        Section("About", (about,)),
    )
    return Page(
        title=title or _title(runs),
        says=_says(runs),
        verdicts=tuple(verdict for label, run in runs.items() for verdict in _verdicts(label if len(runs) > 1 else "", run)),
        facts=tuple(_facts(runs)),
        sections=tuple(section for section in sections if section.figures),
        about=tuple(_small_print(runs)),
    )


def _title(runs: Mapping[str, Run]) -> str:
    names = list(dict.fromkeys(naming.model(run) for run in runs.values()))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _says(runs: Mapping[str, Run]) -> str:
    """What was run on what, each once."""
    told: dict[str, list[str]] = {}
    for label, run in runs.items():
        words = ", ".join(part for part in (naming.technique(run), naming.machine(run), naming.shape(run)) if part)
        told.setdefault(f"{words} ({run.origin})" if words else run.origin, []).append(label)
    sentences = [f"{', '.join(labels)}: {words}." if len(runs) > 1 else f"{words[0].upper()}{words[1:]}." for words, labels in told.items()]
    return " ".join(sentences)


def _verdicts(label: str, run: Run) -> Iterator[Verdict]:
    """Whether it fits: a line for each place, or one for all where `label` tells the Run from others."""
    told = []
    for place, fits in (("GPU", run.fits.gpu), ("host", run.fits.host)):
        used, capacity = (run.number(f"{place.lower()}.memory.{what}") for what in ("used.peak", "capacity"))
        words = "fits" if fits else "does not fit"
        if used is not None and capacity is not None:
            words += f": {say(used, 'B')} of {say(capacity, 'B')}"
        told.append(Verdict(f"{place} memory", words, fits))
    if label:
        yield Verdict(label, "; ".join(f"{each.what} {each.words}" for each in told), run.fits.gpu and run.fits.host)
    else:
        yield from told
    if run.fits.why:
        yield Verdict(f"{label}: why" if label else "why", inert(run.fits.why))


def _facts(runs: Mapping[str, Run]) -> Iterator[Fact]:
    """Key values: of one Run with its band, of several side by side."""
    for name, words in _KEY.items():
        known = {label: value for label, run in runs.items() if isinstance(value := run.values.get(name), Value)}
        if not known:
            continue
        first, value = next(iter(known.items()))
        others = [f"{label}: {say(each.value, each.unit)}" for label, each in known.items() if label != first]
        band = between(value.low, value.high, value.unit) if value.low < value.high else ""
        yield Fact(words, say(value.value, value.unit), "; ".join([first, *others]) if len(runs) > 1 else band)


def _values(runs: Mapping[str, Run]) -> Iterator[Figure]:
    if len(runs) == 1:
        yield run_values.of_one(next(iter(runs.values())))
        return
    yield run_values.of_many(runs)
    yield run_values.bases(runs)


def _time(runs: Mapping[str, Run]) -> Iterator[Figure]:
    yield from over_time(runs)
    held = run_values.held_back(runs)
    if held is not None:
        yield held


def _lead(runs: Mapping[str, Run]) -> str:
    several = "Like curves of all runs lie over one another, each from its own beginning. " if len(runs) > 1 else ""
    return f"{several}A curve is the mean of what a pixel holds, its shade reaches from the lowest to the highest sample. All figures zoom together."


def _tables(runs: Mapping[str, Run]) -> Iterator[Figure]:
    for label, run in runs.items():
        for name, table in sorted(run.tables.items()):
            if name not in _DRAWN and table.num_columns and table.num_rows:
                yield _table(f"{name}, {label}" if len(runs) > 1 else name, run, table)
        notes = run.about.get("notes")
        if isinstance(notes, list | tuple) and notes:
            yield Prose(
                title=f"What was modelled, {label}" if len(runs) > 1 else "What was modelled", paragraphs=tuple(inert(note, 800) for note in notes)
            )


def _table(title: str, run: Run, table: pa.Table) -> Table:
    kept = table.slice(0, _MOST_ROWS)
    rows = tuple(tuple(_plain(value) for value in row) for row in zip(*(column.to_pylist() for column in kept.columns), strict=True))
    says = f"{table.num_rows:,} rows" + (f", of which this page holds the first {_MOST_ROWS:,}." if table.num_rows > _MOST_ROWS else ".")
    columns = tuple(Column(inert(name, 80)) for name in kept.column_names)
    return Table(title=title, says=says, source=run.origin, columns=columns, rows=rows, shown=_SHOWN_ROWS)


def _plain(value: Any) -> Cell:
    return value if value is None or isinstance(value, str | int | float) else inert(value, 200)


def _about(runs: Mapping[str, Run]) -> Iterator[tuple[Cell, ...]]:
    flat = {label: dict(_flat({"job": run.job, "machine": run.machine, "versions": run.about.get("versions", {})})) for label, run in runs.items()}
    for key in dict.fromkeys(key for found in flat.values() for key in found):
        yield (inert(key, 120), *(found.get(key) for found in flat.values()))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Cell]]:
    """A nested mapping as dotted keys."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif value is not None and value != []:
        yield path, inert(value, 300)


def _small_print(runs: Mapping[str, Run]) -> Iterator[str]:
    known = {(curve.table, curve.name) for curve in CURVES}
    for label, run in runs.items():
        for table in ("gpu", "host"):
            names = run.tables[table].column_names if table in run.tables else []
            unknown = [inert(name, 60) for name in names if name not in _KEYS_OF_SERIES and (table, name) not in known]
            if unknown:
                yield f"{label}: not drawn, as this version does not know them: {', '.join(unknown)} of the table {table}."
