"""Beyond the report: larger HBM, energy over the clock, host memory against model size, and what the same fine-tune costs by technique."""

from __future__ import annotations

from typing import Final

from membound.report.charts.bubbles import Axis
from membound.report.charts.data import Cell, Column, Noted
from membound.report.charts.figure import Figure
from membound.report.charts.lines import Line, Lines
from membound.report.charts.scale import say
from membound.report.charts.table import Table
from membound.run.schema import Missing
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book

_CLOCKED: Final = ("llama-7b", "llama-65b-qlora", "llama-65b")
_CLOCKS: Final = {"1593": 1593e6, "2000": 2000e6, "2619": 2619e6, "3200": 3200e6, "4000": 4000e6}
_OFFLOADED: Final = ("llama-7b-offload", "llama-13b", "llama-33b", "llama-65b")
_TECHNIQUES: Final = (
    "llama-7b.2619", "llama-7b-offload.2619", "llama-7b-lora.2619", "llama-7b-qlora.2619", "llama-65b.2619", "llama-65b-qlora.2619",
    "llama-65b-zero3.180gb", "llama-65b-zero3.288gb",
)  # fmt: skip
_LARGER: Final = (("llama-33b", "llama-33b-zero3"), ("llama-65b", "llama-65b-zero3"))
_STACKS: Final = {"2619": "80 GB", "120gb": "120 GB: 24 GB stacks", "180gb": "180 GB: 36 GB stacks", "288gb": "288 GB: eight stacks",
    "288gb-4000": "288 GB at 4000 MHz"}  # fmt: skip
# Stanford Alpaca's recipe (tatsu-lab/stanford_alpaca README @ 761dc5bf): 52,002 rows, three times over.
_ROWS, _EPOCHS = 52_002, 3
_JOULES_PER_KWH: Final = 3.6e6


def capacity(book: Book) -> Figure:
    """Which jobs stop needing offload where HBM is larger, and what that buys."""
    title = "Larger HBM instead of offload"
    found: list[tuple[Cell, ...]] = []
    needed: list[tuple[str, str, str]] = []
    for offloaded, kept in _LARGER:
        before = book.number(f"{offloaded}.2619", "tokens.rate")
        for stacks, words in _STACKS.items():
            name = f"{kept}.{stacks}"
            if name not in book.runs:
                continue
            run = book.runs[name]
            used, rate = run.number("gpu.memory.used.peak"), book.number(name, "tokens.rate")
            times = f"{rate / before:.1f} x" if run.fits.gpu and rate and before else None
            verdict = "fits" if run.fits.gpu else Noted("does not fit", run.fits.why or "")
            found.append((Noted(words, books.title(kept)), used, rate if run.fits.gpu else None, times, verdict))
            if run.fits.gpu and times and kept not in {each[0] for each in needed}:
                needed.append((kept, words, times))
    says = "; ".join(f"{books.title(kept)} first fits at {words}, and is then {times} as fast as with offload" for kept, words, times in needed)
    columns = (Column("HBM of each GPU"), Column("needs", "B"), Column("tokens fed", "token/s"), Column("over offload at 80 GB"), Column("verdict"))
    return Table(
        title=title, label="Table B2", columns=columns, rows=tuple(found), says=f"{says}." if says else "None of these jobs fits without offload.",
        source="ghost GPU; stacks as the report names them, at 2619 MHz unless said; per GPU",
    )  # fmt: skip


def energy(book: Book) -> Figure:
    """Energy for each useful token over the memory clock."""
    lines = []
    for job in _CLOCKED:
        points = []
        for clock, hertz in _CLOCKS.items():
            watts, rate = (book.number(f"{job}.{clock}", name) for name in ("gpu.power.mean", "tokens.rate.useful"))
            if watts and rate:
                points.append((hertz, watts / rate))
        if points:
            lines.append(Line(books.title(job), tuple(x for x, _ in points), tuple(y for _, y in points)))
    if not lines:
        return books.absent("", "Energy for each token over the memory clock", "no job has run at several clocks")
    best = "; ".join(f"{line.name}: least at {say(min(zip(line.y, line.x, strict=True))[1], 'Hz')}" for line in lines)
    return Lines(
        title="Energy for each token over the memory clock", label="Figure B3", x=Axis("memory clock", "Hz"),
        y=Axis("energy of one GPU for a token of its own", "J"),
        lines=tuple(lines), log_y=True, says=f"{best}.", source="gpu.power.mean over tokens.rate.useful, padding left out",
    )  # fmt: skip


def efficiency(book: Book) -> Figure:
    """FLOP/s for each watt over the memory clock, relative to 1593 MHz."""
    lines = []
    for job in _CLOCKED:
        base = book.number(f"{job}.1593", "flops.per.watt")
        found = [(hertz, rate / base) for clock, hertz in _CLOCKS.items() if base and (rate := book.number(f"{job}.{clock}", "flops.per.watt"))]
        if found:
            lines.append(Line(books.title(job), tuple(x for x, _ in found), tuple(y - 1 for _, y in found)))
    stated = books.claim("efficiency-7b")
    lines.append(Line("Llama 7B, published", (2619e6,), ((stated.value or 1.0) - 1,), published=True))
    at = {line.name: dict(zip(line.x, line.y, strict=True)).get(2619e6) for line in lines[:-1]}
    says = "; ".join(f"{name}: {say(value, '1')}" for name, value in at.items() if value is not None)
    return Lines(
        title="FLOP/s for each watt over the memory clock", label="Figure B4", x=Axis("memory clock", "Hz"),
        y=Axis("gain over 1593 MHz", "1"), lines=tuple(lines),
        says=f"From 1593 to 2619 MHz, {says}; the report says {say((stated.value or 1.0) - 1, '1')} for Llama 7B.",
        source="tokens.rate over gpu.power.mean: FLOP for each token do not depend on clocks",
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
        label="Figure B5", log_x=True, log_y=True,
        says=f"From {x[0] / 1e9:.1f}B to {x[-1] / 1e9:.1f}B parameters the ratio rises from {y[0]:.2f} to {y[-1]:.2f}, {rise:.2f} times as fast as "
        "the model grows; the report finds that it should rise.",
        source="host.memory.used.peak over the HBM of eight GPUs; micro-batch 4 and rows as each job has them",
    )  # fmt: skip


def cost(book: Book) -> Figure:
    """What the same fine-tune takes by technique."""
    found: list[tuple[Cell, ...]] = []
    hours: dict[str, float] = {}
    for name in _TECHNIQUES:
        if name not in book.runs:
            continue
        run, point = book.runs[name], book.plan.points[name]
        rate, watts, used = (book.number(name, quantity) for quantity in ("samples.rate", "gpu.power.mean", "gpu.memory.used.peak"))
        fits = run.fits.gpu and run.fits.host
        words = point.title + ("" if name.endswith("2619") else f", {_STACKS[name.rpartition('.')[2]]}")
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
        source=f"{_ROWS:,} rows, {_EPOCHS} times, on eight GPUs at 2619 MHz",
        says=f"{least} takes least, {hours[least]:.1f} GPU hours, {most} most, {hours[most]:.0f}.",
        notes=("Rows are cut to 512 tokens for 7B and for QLoRA, and to 256 where the report offloads: less work for the latter.",),
    )  # fmt: skip
