"""Beyond the report: what bounds each job and each of its phases, and what HBM3E at 4000 MHz would bring it."""

from __future__ import annotations

from typing import Final

from membound.report.charts.bars import Bars, BarSeries
from membound.report.charts.data import Cell, Column, Noted
from membound.report.charts.figure import Figure
from membound.report.charts.scale import say
from membound.report.charts.stacked_bars import Part, StackedBars
from membound.report.charts.table import Table
from membound.run.schema import Run
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book
from membound.study.hbm_fine_tuning.plan import of_class

_RESOURCES: Final = {
    "compute": "arithmetic", "hbm": "HBM", "fixed": "kernels' fixed times", "launch": "launches by the host", "nvlink": "NVLink", "pcie": "PCIe",
    "ddr": "host memory", "host_compute": "host processors",
}  # fmt: skip
_PHASES: Final = ("forward", "backward", "optimizer")
_EXPOSED: Final = {"exposed_communication": "collectives", "exposed_offload": "copies, host", "idle": "idle"}


def bounds(book: Book) -> Figure:
    """By how much each job's step hangs on each resource."""
    title = "What bounds each job"
    jobs = of_class(book.runs)
    if not jobs:
        return books.absent("", title, "no job has run")
    runs = [book.runs[name] for name in jobs.values()]
    parts = tuple(
        Part(words, tuple(_share(run, name) for run in runs)) for name, words in _RESOURCES.items() if any(_share(run, name) for run in runs)
    )
    most = [max(_RESOURCES, key=lambda name, run=run: _share(run, name)) for run in runs]  # type: ignore[misc]
    counted = {name: [books.title(job) for job, bound in zip(jobs, most, strict=True) if bound == name] for name in dict.fromkeys(most)}
    usual = max(counted, key=lambda name: len(counted[name]))
    told = [_bound(name, f"{len(found)} ({'; '.join(found)})") for name, found in counted.items() if name != usual]
    says = ". ".join((*told, _bound(usual, f"the {'other ' if told else ''}{len(counted[usual])}")))
    return StackedBars(
        title=title, label="Figure B1", unit="1", categories=tuple(map(books.title, jobs)), parts=parts, says=f"{says}.",
        source="share of the step's longest path that each resource sets, 2619 MHz: by so many per cent it falls for each that the resource gains",
    )  # fmt: skip


def _bound(name: str, what: str) -> str:
    words = _RESOURCES[name]
    return f"{words[0].upper()}{words[1:]} bound{'' if name == 'launch' else 's'} {what}"


def _share(run: Run, name: str) -> float:
    return float(run.about.get("sensitivity", {}).get(name, 0.0))


def phases(book: Book) -> Figure:
    """Where each job's step goes by phase, and what kernels do not hide."""
    title = "Phases of each job, and what is exposed in them"
    found: list[tuple[Cell, ...]] = []
    offloading: dict[str, float] = {}
    for job, name in of_class(book.runs).items():
        step = book.number(name, "step.time")
        if not step:
            continue
        shares = {part: _of(step, book.number(name, f"step.time.{part}")) for part in (*_PHASES, *_EXPOSED)}
        longest = max(_PHASES, key=lambda part: shares[part] or 0.0)
        offloading[books.title(job)] = shares["exposed_offload"] or 0.0
        found.append((Noted(books.title(job), f"mostly {longest}"), step, *shares.values()))
    columns = (Column("job"), Column("step", "s"), *(Column(head, "1") for head in (*_PHASES, *_EXPOSED.values())))
    most = max(offloading, key=lambda job: offloading[job], default="")
    says = f"{most} leaves the largest share of its step to copies and host work, {say(offloading[most], '1')}." if most else "No job has run."
    return Table(
        title=title, label="Table B1", columns=columns, rows=tuple(found), says=says,
        source="2619 MHz; shares of step.time; exposed is what no kernel hides: collectives, copies and host work, or nothing at all",
    )  # fmt: skip


def _of(step: float, part: float | None) -> float | None:
    # To a thousandth of a per cent: what is left of rounding is nothing.
    return None if part is None else round(part / step, 5)


def gains(book: Book) -> Figure:
    """The gain of each job from 1593 to 2619 MHz and from there to 4000 MHz."""
    title = "Gain of every job from a faster memory clock"
    jobs = {job: name for job, name in of_class(book.runs).items() if f"{job}.1593" in book.runs and f"{job}.4000" in book.runs}
    if not jobs:
        return books.absent("", title, "no job has run at 1593 and 4000 MHz")
    first = [book.ratio(f"{job}.2619", f"{job}.1593", "samples.rate") for job in jobs]
    second = [book.ratio(f"{job}.4000", f"{job}.2619", "samples.rate") for job in jobs]
    ranked = sorted(zip(second, jobs, strict=True), key=lambda each: -(each[0].value if each[0] else 0.0))
    best, gain = ranked[0][1], ranked[0][0]
    stated = {"llama-7b": "gain-7b", "llama-65b": "gain-65b", "llama-65b-qlora": "gain-qlora"}
    said = tuple((books.claim(stated[job]).value or 1.0) - 1 if job in stated else None for job in jobs)
    series = (
        BarSeries("1593 to 2619 MHz", tuple(g.value - 1 if g else None for g in first), published=said),
        BarSeries("2619 to 4000 MHz (HBM3E)", tuple(g.value - 1 if g else None for g in second)),
    )
    return Bars(
        title=title, label="Figure B2", unit="1", categories=tuple(map(books.title, jobs)), series=series,
        source="ghost GPU replayed at each clock, all else equal",
        says=f"HBM3E at 4000 MHz would bring {books.title(best)} most, {say(gain.value - 1 if gain else 0.0, '1')} over 2619 MHz.",
    )  # fmt: skip
