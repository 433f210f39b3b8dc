"""Pictures of the gallery: what commands printed with --json, as a figure and one sentence that says what it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from membound import units
from membound.report.charts.bars import Bars, BarSeries
from membound.report.charts.bubbles import Axis
from membound.report.charts.figure import Figure, Reference
from membound.report.charts.lines import Line, Lines
from membound.report.charts.scale import say
from membound.report.charts.stacked_bars import Part, StackedBars

Document = Mapping[str, Any]
"""What a command printed."""

# Categories of memory at the allocated peak, and what a page calls them.
_CATEGORIES = {
    "weights": "weights", "gradients": "gradients", "optimizer": "optimizer states", "activations": "activations", "logits": "logits and loss",
    "communication": "communication buffers", "temporaries": "temporaries", "workspace": "workspace",
}  # fmt: skip
_COMPARED = {
    "tokens.rate.useful": "tokens per second", "step.time": "step time", "hbm.bandwidth.mean": "HBM bandwidth",
    "hbm.utilisation.mean": "use of the HBM", "gpu.power.mean": "board power", "gpu.energy.step": "energy of a step",
}  # fmt: skip


def number(document: Document, quantity: str) -> float:
    """A quantity of a Run's document, SI; 0 where it is missing."""
    return float(document["values"].get(quantity, {}).get("value", 0.0))


def timeline(found: Sequence[Document], labels: Sequence[str]) -> Figure:
    """Nothing to draw here: the command's own picture is taken."""
    run = found[0]
    used, capacity = (number(run, f"gpu.memory.{name}") for name in ("used.peak", "capacity"))
    most = max(_CATEGORIES, key=lambda name: number(run, f"gpu.memory.{name}"))
    fits = "It fits" if run["fits"]["gpu"] else "It does not fit"
    says = f"{fits}: {say(used, 'B')} of {say(capacity, 'B')}; {_CATEGORIES[most]} take most, {say(number(run, f'gpu.memory.{most}'), 'B')}."
    return Bars(title="", unit="B", categories=(), series=(), says=says)


def swept(found: Sequence[Document], labels: Sequence[str]) -> Figure:
    """Tokens per second over the last axis, a line for each value of the first."""
    outer, inner = found[0]["axes"]
    clocks = tuple(units.parse(text, "Hz", inner["key"]) for text in inner["values"])
    rates = {text: tuple(_rate(point) for point in found[0]["points"] if point["at"][outer["key"]] == text) for text in outer["values"]}
    lines = [Line(f"NVLink {text}", clocks, found_) for text, found_ in rates.items()]
    gains = [f"{say(line.y[-1] / line.y[0] - 1, '1')} with {line.name}" for line in lines]
    return Lines(
        title="Tokens per second over the memory clock", x=Axis("memory clock", "Hz"), y=Axis("tokens/s of one GPU", ""), lines=tuple(lines),
        says=f"From {say(lines[0].x[0], 'Hz')} to {say(lines[0].x[-1], 'Hz')} the job gains {', '.join(gains)}.",
    )  # fmt: skip


def compared(found: Sequence[Document], labels: Sequence[str]) -> Figure:
    """How far the second Run is from the first."""
    ratios = {words: row["ratio"] - 1 for name, words in _COMPARED.items() if (row := found[-1]["values"].get(name)) and row["ratio"] is not None}
    told = ", ".join(f"{words} {change:+.1%}" for words, change in ratios.items())
    return Bars(
        title="2619 MHz against 1593 MHz", unit="1", categories=tuple(ratios), series=(BarSeries("change", tuple(ratios.values())),),
        says=f"From 1593 to 2619 MHz: {told}.",
    )  # fmt: skip


def gained(found: Sequence[Document], labels: Sequence[str]) -> Figure:
    """Gain of each job from the first to the second clock."""
    gains = {label: _rate(sweep["points"][1]) / _rate(sweep["points"][0]) - 1 for label, sweep in zip(labels, found, strict=True)}
    most, least = (pick(gains, key=lambda label: gains[label]) for pick in (max, min))
    return Bars(
        title="Gain from HBM at 4000 MHz", unit="1", categories=tuple(gains), series=(BarSeries("gain over 2619 MHz", tuple(gains.values())),),
        says=f"{most} gains {say(gains[most], '1')} over 2619 MHz, {least} {say(gains[least], '1')}.",
    )  # fmt: skip


def memory(found: Sequence[Document], labels: Sequence[str]) -> Figure:
    """What is held at the allocated peak."""
    parts = tuple(Part(words, tuple(number(run, f"gpu.memory.{name}") for run in found)) for name, words in _CATEGORIES.items())
    peaks = "; ".join(f"{label} {say(number(run, 'gpu.memory.allocated.peak'), 'B')}" for label, run in zip(labels, found, strict=True))
    return StackedBars(
        title="Memory at the allocated peak", unit="B", categories=tuple(labels), parts=tuple(part for part in parts if any(part.values)),
        says=f"Allocated at the peak: {peaks}.",
    )  # fmt: skip


def step(found: Sequence[Document], labels: Sequence[str]) -> Figure:
    """Where a step's time goes."""
    parts = tuple(Part(name, tuple(number(run, f"step.time.{name}") for run in found)) for name in ("forward", "backward", "optimizer"))
    told = (
        f"{label}: {say(number(run, 'step.time'), 's')} a step with {say(number(run, 'gpu.memory.used.peak'), 'B')} of HBM and "
        f"{say(number(run, 'host.memory.used.peak'), 'B')} of host memory"
        for label, run in zip(labels, found, strict=True)
    )
    return StackedBars(title="Time of a step by phase", unit="s", categories=tuple(labels), parts=parts, says=f"{'; '.join(told)}.")


def fitting(found: Sequence[Document], labels: Sequence[str]) -> Figure:
    """Memory of each point against what there is."""
    points = found[0]["points"]
    key = found[0]["axes"][0]["key"]
    used = tuple(float(point["values"]["gpu.memory.used.peak"]["value"]) for point in points)
    capacity = float(points[0]["values"]["gpu.memory.capacity"]["value"])
    fits = [point for point in points if point["fits"]["gpu"] and point["fits"]["host"]]
    best = max(fits, key=_rate)
    return Bars(
        title="GPU memory over the micro-batch", unit="B", categories=tuple(f"micro-batch {point['at'][key]}" for point in points),
        series=(BarSeries("used at the peak", used),), references=(Reference(capacity, "capacity"),),
        says=f"{len(fits)} of {len(points)} fit; micro-batch {best['at'][key]} is fastest, {_rate(best):,.0f} tokens a second.",
    )  # fmt: skip


def raced(found: Sequence[Document], labels: Sequence[str]) -> Figure:
    """Tokens per second on each machine; none where the job does not fit."""
    rates = {str(point["at"]["machine"]): _rate(point) if point["fits"]["gpu"] and point["fits"]["host"] else None for point in found[0]["points"]}
    known = {machine: rate for machine, rate in rates.items() if rate is not None}
    first, best = next(iter(known)), max(known, key=lambda machine: known[machine])
    return Bars(
        title="Tokens per second of one GPU", unit="token/s", categories=tuple(rates), series=(BarSeries("predicted", tuple(rates.values())),),
        says=f"{best} is fastest, {known[best] / known[first]:.1f} times as fast as {first}.",
    )  # fmt: skip


def learned(found: Sequence[Document], labels: Sequence[str]) -> Figure:
    """The loss of each step of a measured Run."""
    run = found[0]
    losses = [float(loss) for loss in run["about"]["losses"] if loss is not None]
    steps = tuple(map(float, range(1, len(losses) + 1)))
    return Lines(
        title="Loss over the steps", x=Axis("step", ""), y=Axis("loss", ""), lines=(Line("measured", steps, tuple(losses)),),
        says=f"{len(losses)} steps of {say(number(run, 'step.time'), 's')} each; the loss went from {losses[0]:.2f} to {losses[-1]:.2f}.",
    )  # fmt: skip


def _rate(point: Document) -> float:
    return float(point["values"]["tokens.rate.useful"]["value"])


PICTURES: Mapping[str, Callable[[Sequence[Document], Sequence[str]], Figure]] = {
    each.__name__: each for each in (timeline, swept, compared, gained, memory, step, fitting, raced, learned)
}
