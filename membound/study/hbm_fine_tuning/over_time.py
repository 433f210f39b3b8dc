"""Figures over time: use of GPU and HBM, capacity and bandwidth, power, heat, and the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import pyarrow.compute as pc

from membound.report.charts.figure import Figure, Reference
from membound.report.charts.run_figures import one_over_time, sentence
from membound.report.charts.run_series import drawable, grid, series
from membound.report.charts.time_series import Series, TimeSeries
from membound.run.schema import Run
from membound.run.series import curve
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book
from membound.study.hbm_fine_tuning.measured import steady


@dataclass(frozen=True)
class Plot:
    """One figure of the report over time."""

    label: str
    kind: str
    """A title of `run_figures.KINDS`, or one of `_SHARES`."""
    job: str
    clocks: tuple[str, ...]
    stated: tuple[tuple[str, str, str], ...] = ()
    """Run of the report, quantity, and words for the line across."""
    limits: tuple[Reference, ...] = ()


# The clocks of each figure are the report's.
_BOTH: Final = ("2619", "1593")
_BUSY: Final = ("gpu.busy", "GPU busy, mean")
_CAPACITY: Final = "Use of HBM capacity and bandwidth"
_HOST: Final = "Use of host processors and memory"
# A memory perspective, Micron, Table 1.
_BOARD: Final = Reference(700.0, "board limit", "Table 1")
_DIE: Final = Reference(87.0, "die limit", "Table 1")
_MEMORY: Final = Reference(95.0, "memory limit", "Table 1")
_7B, _65B, _QLORA = "llama-7b-2619", "llama-65b-offload-2619", "llama-65b-qlora-2619"
_MEAN, _PEAK, _FULL = "hbm.utilisation.mean", "hbm.utilisation.peak", "hbm.capacity.utilisation"

PLOTS: Final = (
    Plot("Figure 7", "Use of GPU and HBM", "llama-7b", _BOTH, ((_7B, *_BUSY), (_7B, _MEAN, "HBM, mean"), (_7B, _PEAK, "HBM, peak"))),
    Plot("Figure 8", _CAPACITY, "llama-7b", _BOTH, ((_7B, _FULL, "capacity"), (_7B, _PEAK, "HBM, peak"))),
    Plot("Figure 9", "GPU power", "llama-7b", _BOTH, (), (_BOARD,)),
    Plot("Figure 10", "Temperature", "llama-7b", _BOTH, (), (_DIE, _MEMORY)),
    Plot("Figures 12 and 22", "Use of GPU and HBM", "llama-65b", ("2619",), ((_65B, *_BUSY), (_65B, _MEAN, "HBM, mean"), (_65B, _PEAK, "HBM, peak"))),
    Plot("Figure 13", _CAPACITY, "llama-65b", ("2619",), ((_65B, _FULL, "capacity"), (_65B, _PEAK, "HBM, peak"))),
    Plot("Figures 14 and 20", "GPU power", "llama-65b", _BOTH, (), (_BOARD,)),
    Plot("Figure 15", "Temperature", "llama-65b", _BOTH, (), (_DIE, _MEMORY)),
    Plot("Figure 16", _HOST, "llama-65b", ("2619",), ((_65B, "cpu.utilisation.mean", "processors, mean"),), (Reference(0.9, "memory", "Figure 16"),)),
    Plot("Figure 21", "GPU power", "llama-65b-qlora", _BOTH, (), (_BOARD,)),
    Plot(
        "Figure 23",
        "Use of GPU and HBM",
        "llama-65b-qlora",
        ("2619",),
        ((_QLORA, *_BUSY), (_QLORA, _MEAN, "HBM, mean"), (_QLORA, _PEAK, "HBM, peak")),
    ),
    # Under the most plausible settings of what the report leaves open, where these are not the usual ones.
    Plot(
        "Figure 7, 16 x 1",
        "Use of GPU and HBM",
        "llama-7b-plausible",
        ("2619",),
        ((_7B, *_BUSY), (_7B, _MEAN, "HBM, mean"), (_7B, _PEAK, "HBM, peak")),
    ),
    Plot("Figure 8, 16 x 1", _CAPACITY, "llama-7b-plausible", ("2619",), ((_7B, _FULL, "capacity"), (_7B, _PEAK, "HBM, peak"))),
    Plot(
        "Figure 23, 16 x 4",
        "Use of GPU and HBM",
        "llama-65b-qlora-plausible",
        ("2619",),
        ((_QLORA, *_BUSY), (_QLORA, _MEAN, "HBM, mean"), (_QLORA, _PEAK, "HBM, peak")),
    ),
)
# Curves that one figure shows as shares: table, curve, words, and the quantity whose value is all of it ('': a share already).
_SHARES: Final = {
    _CAPACITY: (("gpu", "memory.used", "capacity used", "gpu.memory.capacity"), ("gpu", "hbm.utilisation", "bandwidth used", "")),
    _HOST: (("host", "cpu.utilisation", "processors", ""), ("host", "memory.used", "memory used", "host.memory.capacity")),
}


def figure(book: Book, label: str) -> Figure:
    """The figure of the report called `label`."""
    plot = next(each for each in PLOTS if each.label == label)
    title = f"{books.title(plot.job)}: {plot.kind[0].lower() + plot.kind[1:] if not plot.kind.startswith('GPU') else plot.kind}"
    names = [f"{plot.job}.{clock}" for clock in plot.clocks]
    why = book.without(names)
    if why:
        return books.absent(label, title, why)
    runs = {label: run for clock, name in zip(plot.clocks, names, strict=True) for label, run in _beside(book, f"{clock} MHz", name).items()}
    made = _shares(plot.kind, runs) if plot.kind in _SHARES else one_over_time(plot.kind, runs, plot.job)
    assert made is not None
    lines = tuple(line for each in plot.stated for line in books.reference(*each))
    return replace(made, title=title, label=label, group=plot.job, references=(*lines, *plot.limits))


def _beside(book: Book, label: str, name: str) -> dict[str, Run]:
    """The predicted run called `name`, and beside it the measured one from its first counted step on, for as long."""
    predicted = book.runs[name]
    if name not in book.measured:
        return {label: predicted}
    seconds = max(
        (float(pc.max(predicted.tables[table]["time"]).as_py() or 0.0) for table in ("gpu", "host") if table in predicted.tables), default=0.0
    )
    return {label: predicted, f"{label}, this machine": steady(book.measured[name], seconds)}


def _shares(kind: str, runs: Mapping[str, Run]) -> TimeSeries:
    """Curves as shares of what there is of each."""
    drawn: list[Series] = []
    found: dict[str, list[tuple[str, Series]]] = {}
    for label, run in runs.items():
        for table, name, words, whole in _SHARES[kind]:
            placed = grid(run.tables[table], table) if table in run.tables and drawable(run.tables[table], name) else None
            if placed is None:
                continue
            made = series(run, table, name, placed, f"{words}, {label}" if len(runs) > 1 else words)
            total = run.number(whole) if whole else 1.0
            made = replace(made, values=made.values / (total or 1.0))
            drawn.append(made)
            found.setdefault(words, []).append((label if len(runs) > 1 else "", made))
    first = next(iter(runs.values()))
    unit = curve("gpu", "busy").unit
    return TimeSeries(
        title=kind, says=sentence(found, unit), unit=unit, series=tuple(drawn), ceiling=1.0, marks=first.tables.get("marks"),
        source="; ".join(dict.fromkeys(f"{each.origin}, {each.sensor}: {each.name}" for each in drawn)),
    )  # fmt: skip
