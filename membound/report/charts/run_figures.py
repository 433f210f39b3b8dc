"""The figures that any Runs make over time: like curves of all Runs in one figure, figures of like things in one order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from membound.report.charts.figure import Reference
from membound.report.charts.run_series import Grid, drawable, grid, series
from membound.report.charts.scale import clock, say
from membound.report.charts.time_series import Series, TimeSeries
from membound.report.terminal import gpu_capacity, host_capacity
from membound.run.schema import Run
from membound.run.series import curve as known_curve


@dataclass(frozen=True)
class Kind:
    """One figure: curves of one table and one unit."""

    title: str
    table: str
    curves: Mapping[str, str]
    """Name in the table: name in words."""
    ceiling: float | None = None


KINDS: Final = (
    Kind("Use of GPU and HBM", "gpu", {"busy": "GPU busy", "hbm.utilisation": "HBM bandwidth used"}, 1.0),
    Kind("HBM traffic", "gpu", {"hbm.read": "HBM read", "hbm.write": "HBM write"}),
    Kind("GPU memory", "gpu", {"memory.used": "used", "memory.reserved": "reserved", "memory.allocated": "allocated"}),
    Kind("Use of multiprocessors", "gpu", {"sm.utilisation": "multiprocessors with work", "tensor.utilisation": "tensor cores at work"}, 1.0),
    Kind("GPU power", "gpu", {"power": "board power", "power.average": "board power, mean of a second", "memory.power": "memory power"}),
    Kind("GPU energy", "gpu", {"energy": "energy counter"}),
    Kind("Temperature", "gpu", {"temperature.gpu": "GPU die", "temperature.hbm": "HBM"}),
    Kind("Clocks", "gpu", {"clock.core": "core clock", "clock.memory": "memory clock"}),
    Kind("Copies over PCIe", "gpu", {"pcie.h2d": "host to GPU", "pcie.d2h": "GPU to host"}),
    Kind("NVLink", "gpu", {"nvlink.sent": "sent", "nvlink.received": "received"}),
    Kind("Memory busy flag", "gpu", {"memory.busy": "memory busy"}, 1.0),
    Kind("Host processors", "host", {"cpu.utilisation": "cores in use"}, 1.0),
    Kind("Host memory", "host", {"memory.used": "used", "memory.pinned": "pinned"}),
    Kind("Host memory traffic", "host", {"memory.bandwidth": "DDR traffic"}),
    Kind("Host power", "host", {"power": "processors and DIMMs"}),
    Kind("Local drives", "host", {"nvme.read": "read", "nvme.write": "write"}),
)

# A line so many times above the highest curve is told in words.
_FAR: Final = 4


def over_time(runs: Mapping[str, Run], group: str = "time") -> tuple[TimeSeries, ...]:
    """Every figure over time that `runs`, by label, have curves for. Raises `RecordError` for series that lie on no grid."""
    grids = {(label, table): grid(run.tables[table], table) for label, run in runs.items() for table in ("gpu", "host") if table in run.tables}
    made = (_figure(kind, runs, grids, group) for kind in KINDS)
    return tuple(figure for figure in made if figure is not None)


def one_over_time(title: str, runs: Mapping[str, Run], group: str = "time") -> TimeSeries | None:
    """The figure called `title` in `KINDS`, or None where no Run has its curves. Raises `RecordError` as `over_time` does."""
    kind = next(each for each in KINDS if each.title == title)
    grids = {(label, kind.table): grid(run.tables[kind.table], kind.table) for label, run in runs.items() if kind.table in run.tables}
    return _figure(kind, runs, grids, group)


def _figure(kind: Kind, runs: Mapping[str, Run], grids: Mapping[tuple[str, str], Grid | None], group: str) -> TimeSeries | None:
    found: dict[str, list[tuple[str, Series]]] = {}
    for label, run in runs.items():
        placed = grids.get((label, kind.table))
        if placed is None:
            continue
        for curve, words in kind.curves.items():
            if drawable(run.tables[kind.table], curve):
                name, tag = (f"{words}, {label}", label) if len(runs) > 1 else (words, "")
                found.setdefault(words, []).append((tag, series(run, kind.table, curve, placed, name)))
    if not found:
        return None
    drawn = [each for like in found.values() for _, each in like]
    lines = _capacities(kind, runs)
    far = [line for line in lines if _is_far(line, drawn)]
    unit = known_curve(kind.table, next(iter(kind.curves))).unit
    return TimeSeries(
        title=kind.title,
        says=sentence(found, unit),
        source=_source(drawn),
        unit=unit,
        series=tuple(drawn),
        references=tuple(line for line in lines if line not in far),
        marks=next((run.tables["marks"] for run in runs.values() if "marks" in run.tables), None),
        group=group,
        ceiling=kind.ceiling,
        notes=_notes(runs, far),
    )


def sentence(curves: Mapping[str, Sequence[tuple[str, Series]]], unit: str) -> str:
    """What the curves, (label, series) of each Run by their words, show in one sentence: the mean and the peak of each."""
    parts = []
    for words, found in curves.items():
        read = [(label, series, peak) for label, series in found if (peak := series.peak()) is not None]
        if not read:
            reasons = dict.fromkeys(series.reason for _, series in found if series.reason)
            parts.append(f"{words}: no sample could be read" + (f" ({', '.join(reasons)})" if reasons else ""))
            continue
        parts.append(f"{words} {_levels(read, unit)}")
    text = "; ".join(parts) + "."
    return text[0].upper() + text[1:]


def _levels(read: Sequence[tuple[str, Series, tuple[float, int, float]]], unit: str) -> str:
    """Means of all, and the highest peak: whose, on which device, when."""
    means = ", ".join(say(float(series.present.mean()), unit) + (f" ({label})" if label else "") for label, series, _ in read)
    label, series, peak = max(read, key=lambda each: each[2][0])
    if len(read) == 1 and float(series.present.min()) == peak[0]:
        return f"{means} throughout"
    where = f" on {series.noun} {peak[1]}" if len(series.devices) > 1 else ""
    of = f" of {label}" if label else ""
    return f"{means} on average, {say(peak[0], unit)} at most{where}{of} after {clock(peak[2])}"


def _source(found: Sequence[Series]) -> str:
    """Where the curves come from, each source once."""
    told: dict[str, list[str]] = {}
    for each in found:
        native = f", new every {say(each.native, 's', 2)}" if each.native else ""
        words = f"{each.origin}, {each.sensor or 'source not told'}" + (f" ({each.tier})" if each.tier else "") + native
        told.setdefault(words, []).append(each.name)
    return "; ".join(f"{words}: {', '.join(names)}" if len(told) > 1 else words for words, names in told.items())


def _capacities(kind: Kind, runs: Mapping[str, Run]) -> tuple[Reference, ...]:
    if kind.title not in {"GPU memory", "Host memory"}:
        return ()
    of = gpu_capacity if kind.table == "gpu" else host_capacity
    sizes = {of(run) for run in runs.values()}
    return tuple(Reference(size, "capacity") for size in sorted(size for size in sizes if size and math.isfinite(size)))


def _is_far(line: Reference, found: Sequence[Series]) -> bool:
    """Whether a line would press the curves flat."""
    peaks = [peak[0] for peak in (each.peak() for each in found) if peak is not None]
    return line.value > _FAR * max(peaks, default=line.value)


def _notes(runs: Mapping[str, Run], far: Sequence[Reference]) -> tuple[str, ...]:
    marked = [label for label, run in runs.items() if "marks" in run.tables]
    steps = (f"Steps and phases are those of {marked[0]}.",) if len(runs) > 1 and marked else ()
    return (*steps, *(f"The {line.label}, {say(line.value, 'B')}, is far above." for line in far))
