"""Beyond the report: which jobs stop needing offload where HBM is larger, and how much host memory each byte of HBM needs."""

from __future__ import annotations

from typing import Final

from membound.report.charts.bubbles import Axis
from membound.report.charts.data import Cell, Column, Noted
from membound.report.charts.figure import Figure
from membound.report.charts.lines import Line, Lines
from membound.report.charts.table import Table
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book

_OFFLOADED: Final = ("llama-7b-offload", "llama-13b", "llama-33b", "llama-65b")
_LARGER: Final = (("llama-33b", "llama-33b-zero3"), ("llama-65b", "llama-65b-zero3"))
STACKS: Final = {"2619": "80 GB", "120gb": "120 GB: 24 GB stacks", "180gb": "180 GB: 36 GB stacks", "288gb": "288 GB: eight stacks",
    "288gb-4000": "288 GB at 4000 MHz"}  # fmt: skip
"""Words for machines of the plan that differ in HBM."""


def capacity(book: Book) -> Figure:
    """Which jobs stop needing offload where HBM is larger, and what that buys."""
    title = "Larger HBM instead of offload"
    found: list[tuple[Cell, ...]] = []
    needed: list[tuple[str, str, str]] = []
    for offloaded, kept in _LARGER:
        before = book.number(f"{offloaded}.2619", "tokens.rate")
        for stacks, words in STACKS.items():
            name = f"{kept}.{stacks}"
            if name not in book.runs:
                continue
            run = book.runs[name]
            used, rate = run.number("gpu.memory.used.peak"), book.number(name, "tokens.rate")
            times = f"{rate / before:.1f} x" if run.fits.gpu and rate and before else None
            verdict = "fits" if run.fits.gpu else Noted("does not fit", books.briefly(run.fits.why or ""))
            found.append((Noted(words, books.title(kept)), used, rate if run.fits.gpu else None, times, verdict))
            if run.fits.gpu and times and kept not in {each[0] for each in needed}:
                needed.append((kept, words, times))
    says = "; ".join(
        f"{books.title(kept)} first fits at {words}, and is then {times.removesuffix(' x')} times as fast as with offload"
        for kept, words, times in needed
    )
    columns = (Column("HBM of each GPU"), Column("needs", "B"), Column("tokens fed", "token/s"), Column("over offload at 80 GB"), Column("verdict"))
    return Table(
        title=title, label="Table B2", columns=columns, rows=tuple(found), says=f"{says}." if says else "None of these jobs fits without offload.",
        source="ghost GPU; stacks as the report names them, at 2619 MHz unless said; per GPU",
    )  # fmt: skip


def ddr_ratio(book: Book) -> Figure:
    """Host memory needed for each byte of HBM, over model size, all offloaded to the report's eight GPUs."""
    title = "DDR needed for each byte of HBM, over model size"
    names = [f"{job}.2619" for job in _OFFLOADED if f"{job}.2619" in book.runs]
    points = []
    for name in names:
        run = book.runs[name]
        used, size, hbm = book.value(name, "host.memory.used.peak"), run.number("model.parameters"), run.number("gpu.memory.capacity")
        if used is not None and size and hbm:
            total = hbm * int(run.job["gpus"])
            points.append((size, used.value / total, used.low / total, used.high / total))
    if not points:
        return books.absent("", title, book.without([f"{job}.2619" for job in _OFFLOADED]))
    x, y, low, high = (tuple(column) for column in zip(*points, strict=True))
    # A memory perspective, Micron, Table 3: 90 % of 2 TB over 640 GB for Llama 65B.
    stated = Line("published peak, Llama 65B", (65.2e9,), (0.9 * 2048 / 640,), published=True)
    rise = (y[-1] / y[0]) / (x[-1] / x[0])
    return Lines(
        title=title, x=Axis("parameters", ""), y=Axis("DDR over HBM", ""), lines=(Line("ZeRO-3, all offloaded", x, y, low, high), stated),
        label="Figure B3", log_x=True, log_y=True,
        says=f"From {x[0] / 1e9:.1f}B to {x[-1] / 1e9:.1f}B parameters the ratio rises from {y[0]:.2f} to {y[-1]:.2f}, {rise:.2f} times as fast as "
        "the model grows; the report finds that it should rise.",
        source="host.memory.used.peak over the HBM of eight GPUs; micro-batch 4 and rows as each job has them",
    )  # fmt: skip
