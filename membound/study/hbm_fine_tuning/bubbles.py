"""Figures 17, 18 and 24: the classes of models against each other, as bubbles."""

from __future__ import annotations

import statistics

from membound.report.charts.bubbles import Axis, Bubble, Bubbles
from membound.report.charts.figure import Figure
from membound.report.charts.scale import say
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book
from membound.study.hbm_fine_tuning.plan import PLAUSIBLE, of_class

_USE = "hbm.utilisation.mean"
_QLORA = "llama-65b-qlora"
# Of the report's figures: the other jobs of the plan are ours alone.
_OURS = frozenset({"llama-65b-zero3", "llama-33b-zero3", "llama-7b-offload", "llama-7b-lora", "llama-7b-qlora"})


def read_and_write(book: Book, label: str) -> Figure:
    """Figure 17, or 24, which adds QLoRA: share of reads and writes, size by use of HBM."""
    title = "Reads and writes of HBM" + (", QLoRA among them" if label == "Figure 24" else "")
    found = []
    jobs = _jobs(book, qlora=label == "Figure 24")
    book = book.alike(jobs.values(), "hbm.read.share", _USE)
    for job, name in jobs.items():
        share, use = book.number(name, "hbm.read.share"), book.number(name, _USE)
        if share is not None and use is not None:
            found.append(Bubble(books.title(job), share, 1 - share, use, book.plan.points[name].family))
    if not found:
        return books.absent(label, title, "no class of models has run")
    median = statistics.median(each.x for each in found)
    low, high = min(found, key=lambda each: each.size), max(found, key=lambda each: each.size)
    says = (
        f"Reads are {say(median, '1')} of HBM traffic in the median of {len(found)} models, where the report says 60 % for most; "
        f"{low.name} uses HBM least, {say(low.size, '1')}, {high.name} most, {say(high.size, '1')}."
    )
    if label == "Figure 24":
        before, after = (_percent(book, f"{job}.2619") for job in ("llama-65b", _QLORA))
        says = f"QLoRA takes Llama 65B from {before} to {after} of HBM's bandwidth; the report: 20 % to 56 %."
    return Bubbles(
        title=title, label=label, says=says, bubbles=tuple(found), source=f"{book.origin(jobs.values())}; {_SOURCE}",
        x=Axis("reads", "1"), y=Axis("writes", "1"), size=Axis("use of HBM bandwidth", "1"),
    )  # fmt: skip


def power(book: Book) -> Figure:
    """Figure 18: temperature and use of HBM, size by power."""
    label, title = "Figure 18", "HBM's heat and use, and the board's power"
    found = []
    jobs = _jobs(book, qlora=False)
    book = book.alike(jobs.values(), "hbm.temperature.mean", _USE, "gpu.power.mean")
    for job, name in jobs.items():
        values = [book.number(name, quantity) for quantity in ("hbm.temperature.mean", _USE, "gpu.power.mean")]
        heat, use, watts = values
        if heat is not None and use is not None and watts is not None:
            found.append(Bubble(books.title(job), heat, use, watts, book.plan.points[name].family))
    if not found:
        return books.absent(label, title, "no class of models has run")
    least, most = min(found, key=lambda each: each.size), max(found, key=lambda each: each.size)
    says = f"Boards draw from {say(least.size, 'W')} ({least.name}) to {say(most.size, 'W')} ({most.name}). {_bert(found)}"
    return Bubbles(
        title=title, label=label, says=says, bubbles=tuple(found), source=f"{book.origin(jobs.values())}; {_SOURCE}",
        x=Axis("HBM temperature", "degC"), y=Axis("use of HBM bandwidth", "1"), size=Axis("board power", "W"),
    )  # fmt: skip


_SOURCE = "hgx-h100 at 2619 MHz; recipes: the public reference of each model, see `membound catalogue models NAME`"


def _jobs(book: Book, qlora: bool) -> dict[str, str]:
    found = of_class(book.runs)
    # Under their most plausible settings beside the usual ones in the last of the figures, which is not drawn for the report's other classes.
    return {job: name for job, name in found.items() if job not in _OURS and (qlora or (job != _QLORA and not job.endswith(PLAUSIBLE)))}


def _percent(book: Book, name: str) -> str:
    value = book.number(name, _USE)
    return "missing" if value is None else say(value, "1")


def _bert(found: list[Bubble]) -> str:
    """Whether BERT draws least of those that use HBM alike, as the report says."""
    bert = next((each for each in found if each.name == "BERT-large"), None)
    like = [] if bert is None else [each for each in found if each is not bert and abs(each.y - bert.y) <= 0.10]
    if bert is None or not like:
        return "No other model is within 10 points of BERT's use of HBM."
    lower = [each.name for each in like if each.size < bert.size]
    front = f"BERT draws {say(bert.size, 'W')}"
    return (
        f"{front}, the least of {len(like) + 1} models of like use, as the report says."
        if not lower
        else f"{front}; {', '.join(lower)} draw less at like use, against the report."
    )
