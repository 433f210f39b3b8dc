"""Beyond the report: what the same fine-tune costs by technique."""

from __future__ import annotations

from typing import Final

from membound.report.charts.data import Cell, Column
from membound.report.charts.figure import Figure
from membound.report.charts.table import Table
from membound.run.schema import Missing
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book
from membound.study.hbm_fine_tuning.capacity import STACKS

_TECHNIQUES: Final = (
    "llama-7b.2619", "llama-7b-offload.2619", "llama-7b-lora.2619", "llama-7b-qlora.2619", "llama-65b.2619", "llama-65b-qlora.2619",
    "llama-65b-zero3.180gb", "llama-65b-zero3.288gb",
)  # fmt: skip
# Stanford Alpaca's recipe (tatsu-lab/stanford_alpaca README @ 761dc5bf): 52,002 rows, three times over.
_ROWS, _EPOCHS = 52_002, 3
_JOULES_PER_KWH: Final = 3.6e6


def cost(book: Book) -> Figure:
    """What the same fine-tune takes by technique."""
    book = book.alike([name for name in _TECHNIQUES if name in book.runs], "samples.rate", "gpu.power.mean", "gpu.memory.used.peak")
    found: list[tuple[Cell, ...]] = []
    hours: dict[str, float] = {}
    for name in _TECHNIQUES:
        if name not in book.runs:
            continue
        run, point = book.runs[name], book.plan.points[name]
        rate, watts, used = (book.number(name, quantity) for quantity in ("samples.rate", "gpu.power.mean", "gpu.memory.used.peak"))
        fits = run.fits.gpu and run.fits.host
        words = point.title + ("" if name.endswith("2619") else f", {STACKS[name.rpartition('.')[2]]}")
        if not fits or rate is None or watts is None:
            found.append((words, used, Missing(run.fits.why or "no rate"), None, None))
            continue
        seconds, gpus = _ROWS * _EPOCHS / rate, int(run.job["gpus"])
        hours[words] = seconds * gpus / 3600
        found.append((words, used, seconds, hours[words], seconds * gpus * watts / _JOULES_PER_KWH))
    if not hours:
        return books.absent("", "Cost of the same fine-tune by technique", "none of the techniques has run")
    least, most = min(hours, key=lambda word: hours[word]), max(hours, key=lambda word: hours[word])
    columns = (
        Column("technique"),
        Column("HBM of a GPU", "B"),
        Column("three epochs of Alpaca", "s"),
        Column("GPU hours"),
        Column("energy of the GPUs, kWh"),
    )
    return Table(
        title="Cost of the same fine-tune by technique", label="Table B3", columns=columns, rows=tuple(found),
        source=f"{book.origin(_TECHNIQUES)}; {_ROWS:,} rows, {_EPOCHS} times, on eight GPUs at 2619 MHz",
        says=f"{least} takes least, {hours[least]:.1f} GPU hours, {most} most, {hours[most]:.0f}.",
        notes=("Rows are cut to 512 tokens for 7B and for QLoRA, and to 256 where the report offloads: less work for the latter.",),
    )  # fmt: skip
