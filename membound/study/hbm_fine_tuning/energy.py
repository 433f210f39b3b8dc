"""Beyond the report: energy for each token, and FLOP/s for each watt, over the memory clock."""

from __future__ import annotations

from typing import Final

from membound.report.charts.bubbles import Axis
from membound.report.charts.figure import Figure
from membound.report.charts.lines import Line, Lines
from membound.report.charts.scale import say
from membound.study.hbm_fine_tuning import book as books
from membound.study.hbm_fine_tuning.book import Book

_CLOCKED: Final = ("llama-7b", "llama-65b-qlora", "llama-65b")
_CLOCKS: Final = {"1593": 1593e6, "2000": 2000e6, "2619": 2619e6, "3200": 3200e6, "4000": 4000e6}


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
        title="Energy for each token over the memory clock", label="Figure B4", x=Axis("memory clock", "Hz"),
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
        title="FLOP/s for each watt over the memory clock", label="Figure B5", x=Axis("memory clock", "Hz"),
        y=Axis("gain over 1593 MHz", "1"), lines=tuple(lines),
        says=f"From 1593 to 2619 MHz, {says}; the report says {say((stated.value or 1.0) - 1, '1')} for Llama 7B.",
        source="tokens.rate over gpu.power.mean: FLOP for each token do not depend on clocks",
    )  # fmt: skip
