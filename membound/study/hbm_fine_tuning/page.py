"""The study as one page: agreement first, then the report's figures in its order, then what goes beyond it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from membound import __version__
from membound.report.charts.data import Cell, Column, Noted
from membound.report.charts.figure import Figure
from membound.report.charts.table import Table
from membound.report.page.page import Fact, Page, Section, Verdict
from membound.run.schema import Run
from membound.spec import catalogue
from membound.study.hbm_fine_tuning import (
    agreeing,
    bounds,
    bubbles,
    capacity,
    clocks,
    cost,
    diagrams,
    dimms,
    energy,
    measured,
    over_time,
    sizes,
    system,
)
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book

_MACHINE: Final = "hgx-h100"
_Draw = Callable[[Book, str], Figure]

# The report's own figures over time and of clocks, by its sections.
_7B: Final[tuple[tuple[_Draw, str], ...]] = (
    (clocks.figure, "Figure 6"), (over_time.figure, "Figure 7"), (over_time.figure, "Figure 8"), (over_time.figure, "Figure 9"),
    (over_time.figure, "Figure 10"), (over_time.figure, "Figure 7, 16 x 1"), (over_time.figure, "Figure 8, 16 x 1"),
)  # fmt: skip
_65B: Final[tuple[tuple[_Draw, str], ...]] = (
    (clocks.figure, "Figure 11"), (over_time.figure, "Figures 12 and 22"), (over_time.figure, "Figure 13"), (over_time.figure, "Figures 14 and 20"),
    (over_time.figure, "Figure 15"), (over_time.figure, "Figure 16"),
)  # fmt: skip
_QLORA: Final[tuple[tuple[_Draw, str], ...]] = (
    (clocks.figure, "Figure 19"), (over_time.figure, "Figure 21"), (over_time.figure, "Figure 23"), (over_time.figure, "Figure 23, 16 x 4"),
    (bubbles.read_and_write, "Figure 24"),
)  # fmt: skip


def page(book: Book) -> Page:
    """The page of all that the study has."""
    machine = catalogue.machine(_MACHINE)
    sections = (
        Section("Agreement with the report", (agreeing.agreement(book), agreeing.contradictions(book))),
        *_measured(book),
        Section("Models and memory", (sizes.growth(), sizes.growth_table(), diagrams.encoder_decoder(), diagrams.decoder(), sizes.zero(book))),
        Section("The system", (system.table(machine, "1"), system.table(machine, "2"), diagrams.system(machine))),
        Section("Llama 7B", _drawn(book, _7B), _OVER_TIME),
        Section("Llama 65B with offload", _drawn(book, _65B)),
        Section("Classes of models", (bubbles.read_and_write(book, "Figure 17"), bubbles.power(book))),
        Section("Llama 65B by QLoRA", _drawn(book, _QLORA)),
        Section("Host memory", (dimms.figure(book, "Figure 25a"), dimms.figure(book, "Figure 25b"), dimms.table(book))),
        Section("Beyond the report: what bounds each job", (bounds.bounds(book), bounds.phases(book), bounds.gains(book))),
        Section("Beyond the report: capacity", (capacity.capacity(book), capacity.ddr_ratio(book))),
        Section("Beyond the report: energy and cost", (energy.energy(book), energy.efficiency(book), cost.cost(book))),
        Section("What was run", (_jobs(book),)),
    )
    return Page(
        title="Fine-tuning on HBM: the report's study, repeated", says=agreeing.counted(book), sections=sections, verdicts=_verdicts(book),
        facts=tuple(_facts(book)), about=(*((_MEASURED,) if book.measured else ()), *_SMALL_PRINT),
    )  # fmt: skip


_OVER_TIME: Final = (
    "Predicted curves are of one GPU, as all run alike, at 20 ms; of the host at 1 s. A curve is the mean of what a pixel holds, its shade reaches "
    "from the lowest to the highest sample. Dashed lines are the report's numbers."
)
_MEASURED: Final = (
    "Measured runs stand beside the predicted ones over time, and in their place where a figure or a statement compares runs of which all were "
    "measured. What bounds a step, memory by category and clocks that this machine did not run at are predicted."
)
_SMALL_PRINT: Final = (
    f"membound {__version__}. Every number called ours is predicted, unless measured stands beside it: the real training programs run on a GPU that "
    "is not there, and what they launch is replayed on the machine. Nothing is fitted to the report.",
    "The report: A memory perspective: The effects of fine-tuning LLMs with high-bandwidth memory, Micron (2024), CCM004-676576390-11765.",
)


def _measured(book: Book) -> tuple[Section, ...]:
    return (Section("Measured on this machine", (measured.table(book),)),) if book.measured else ()


def _drawn(book: Book, figures: tuple[tuple[_Draw, str], ...]) -> tuple[Figure, ...]:
    return tuple(draw(book, label) for draw, label in figures)


def _verdicts(book: Book) -> tuple[Verdict, ...]:
    failed = tuple(Verdict(f"{name} failed", reason, False) for name, reason in _failures(book).items())
    unmeasured = tuple(Verdict(f"{_title(book, name)} could not be measured", reason, False) for name, reason in book.unmeasured.items())
    return (agreeing.verdict(book), *failed, *unmeasured)


def _failures(book: Book) -> dict[str, str]:
    """Why a job has no run, once for each reason and job."""
    return {_title(book, name): reason for name, reason in book.failed.items()}


def _title(book: Book, name: str) -> str:
    return book.plan.points[name].title if name in book.plan.points else name


def _facts(book: Book) -> list[Fact]:
    found = [Fact("runs", str(len(book.runs)), f"of {len(book.plan.points)} planned")]
    for name, job in (("gain-7b", "llama-7b"), ("gain-65b", "llama-65b"), ("gain-qlora", "llama-65b-qlora")):
        each = next(each for each in book.agreements if each.claim.id == name)
        if each.ratio is not None and each.claim.value is not None:
            ours = each.ratio * each.claim.value - 1
            found.append(Fact(f"{books.title(job)}: gain from 1593 to 2619 MHz", f"{ours:+.1%}", f"published {each.claim.value - 1:+.1%}"))
    return found


def _jobs(book: Book) -> Table:
    """Every planned run: what became of it."""
    columns = (
        Column("run"), Column("origin"), Column("step", "s"), Column("HBM used", "B"), Column("HBM bandwidth", "1"), Column("GPU busy", "1"),
        Column("power", "W"), Column("verdict"),
    )  # fmt: skip
    found: list[tuple[Cell, ...]] = []
    for name in book.plan.points:
        if name in book.measured:
            found.append(_job(book, name, book.measured[name]))
        found.append(_job(book, name, book.runs.get(name)))
    there = f"{len(book.runs)} of {len(book.plan.points)} runs are there"
    return Table(
        title="Every run", columns=columns, rows=tuple(found), label="Table C",
        says=f"{there}{f', {len(book.measured)} of them measured as well' if book.measured else ''}; each is a folder beside this page.",
        notes=("A job that does not fit is timed all the same, as if it did.",),
    )  # fmt: skip


_QUANTITIES: Final = ("step.time", "gpu.memory.used.peak", "hbm.utilisation.mean", "gpu.busy", "gpu.power.mean")


def _job(book: Book, name: str, run: Run | None) -> tuple[Cell, ...]:
    point = book.plan.points[name]
    verdict = "failed" if run is None else "fits" if run.fits.gpu and run.fits.host else "does not fit"
    why = book.failed.get(name, "not run") if run is None else run.fits.why or ""
    origin = "predicted" if run is None else run.origin
    not_measured = book.unmeasured.get(name) or book.why_predicted.get(name, "") if origin == "predicted" and name not in book.measured else ""
    numbers = (None if run is None else run.number(quantity) for quantity in _QUANTITIES)
    return Noted(point.title, name), Noted(origin, not_measured), *numbers, Noted(verdict, books.briefly(why))
