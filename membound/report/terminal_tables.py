"""The tables of the terminal summary: categories, holdings, bands, host, cures. Missing values show their reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from membound.report.folding import Group, groups
from membound.report.palette import LABEL, STACK
from membound.report.terminal_bar import swatch
from membound.report.terminal_face import Face, size
from membound.run.schema import Missing, Run, Value

_SHOWN = 8
_GPU = (
    ("allocated", "gpu.memory.allocated.peak"),
    ("reserved", "gpu.memory.reserved.peak"),
    ("used", "gpu.memory.used.peak"),
)
_HOST = (
    ("used", "host.memory.used.peak"),
    ("pinned", "host.memory.pinned.peak"),
    ("pageable", "host.memory.pageable.peak"),
    ("base system", "host.memory.base"),
)


def categories(run: Run, face: Face, capacity: float | None) -> Table | None:
    """Memory by category at the peak, as stacked, top first, and its share of the capacity."""
    table = _grid(face, "left", "left", "right", "left")
    for name in (*reversed(STACK), "context", "libraries"):
        value = run.values.get(f"gpu.memory.{name}")
        label = {"context": "CUDA context", "libraries": "libraries"}.get(name, LABEL.get(name, name))
        key = swatch("context" if name == "libraries" else name, face)
        if isinstance(value, Missing):
            table.add_row(key, label, "", _reason(value, face))
        elif isinstance(value, Value) and value.value > 0:
            share = _share(value.value / capacity) if capacity else ""
            table.add_row(key, label, size(value.value), Text(share, style="dim"))
    return table if table.row_count else None


def bands(run: Run, face: Face) -> Table | None:
    """Peaks as PyTorch and the driver would show them, each with the band in which the truth is expected."""
    return _values(run, face, _GPU)


def host(run: Run, face: Face) -> Table | None:
    """The node's memory: what is known of it, then the categories that fill it."""
    named = {name for _, name in _HOST} | {"host.memory.capacity"}
    others = [
        (name.removeprefix("host.memory.").removesuffix(".peak").replace(".", " "), name)
        for name, value in run.values.items()
        if name.startswith("host.memory.") and name not in named and isinstance(value, Value) and value.unit == "B"
    ]
    return _values(run, face, (*_HOST, *others, ("capacity", "host.memory.capacity")))


def host_categories(run: Run, face: Face) -> Table | None:
    """One node's bytes by category and kind at the peak."""
    found = run.about.get("host_by_category")
    held = {key: float(number) for key, number in found.items() if isinstance(number, int | float)} if isinstance(found, Mapping) else {}
    table = _grid(face, "left", "right")
    for name, nbytes in sorted(held.items(), key=lambda item: -item[1])[:_SHOWN]:
        if nbytes > sum(held.values()) / 1000:
            table.add_row(face.say(name, "dim", 60), Text(size(nbytes), style="dim"))
    return table if table.row_count else None


def holdings(run: Run, face: Face) -> Table | None:
    """Who holds most at the peak, layers folded."""
    found = groups(run.tables.get("memory.holdings"))
    table = _grid(face, "left", "left", "right", "right")
    room = face.width - 2 - 6 - 10 - 8
    for group in found[:_SHOWN]:
        count = f"x{group.modules}" if group.modules > 1 else ""
        table.add_row(swatch_of(group, face), _holder(group, face, room), Text(count, style="dim"), size(group.nbytes))
    rest = found[_SHOWN:]
    if rest:
        table.add_row("", Text(f"{len(rest)} more", style="dim"), "", Text(size(sum(group.nbytes for group in rest)), style="dim"))
    return table if found else None


def cures(run: Run, face: Face) -> Table | None:
    """What was tried to make it fit, what fits first."""
    rows = _tried(run)
    table = _grid(face, "left", "left", "right", "left")
    for cure in sorted(rows, key=lambda cure: not cure.get("fits")):
        fits, used = bool(cure.get("fits")), _used(cure)
        mark = Text(face.yes, style="bold green") if fits else Text(face.no, style="dim")
        change = face.say(cure["change"], "bold" if fits else "dim", 120)
        table.add_row(mark, change, "" if used is None else size(used), Text("fits" if fits else "still too much", style="" if fits else "dim"))
    return table if rows else None


def cures_title(run: Run) -> str:
    """What the table of cures is of."""
    if run.fits.gpu and run.fits.host:
        return "Other settings, with --set"
    return "What would fit, with --set" if any(cure.get("fits") for cure in _tried(run)) else "Tried, and still too much"


def swatch_of(group: Group, face: Face) -> Text:
    """A holding's key: that of its category, if it is a known one."""
    return swatch(group.category, face) if group.category in LABEL else Text("  ")


def _holder(group: Group, face: Face, room: int) -> Text:
    if group.module:
        return face.tail(group.module, room)
    label = LABEL.get(group.category, group.category)
    return Text.assemble(face.say(label, "", 40), " ", face.tail(group.line, room - len(label) - 1, "dim") if group.line else "")


def _tried(run: Run) -> list[Mapping[str, Any]]:
    cures = run.about.get("cures")
    return [cure for cure in cures if isinstance(cure, Mapping) and cure.get("change")] if isinstance(cures, list | tuple) else []


def _values(run: Run, face: Face, names: Iterable[tuple[str, str]]) -> Table | None:
    """Value and band; what each rests on is in the Run, and too long for a terminal."""
    table = _grid(face, "left", "right", "left")
    for label, name in names:
        value = run.values.get(name)
        if isinstance(value, Missing):
            table.add_row(face.say(label, "", 40), "", _reason(value, face))
        elif value is not None:
            band = "" if value.low == value.high else f"{size(value.low)} to {size(value.high)}"
            table.add_row(face.say(label, "", 40), size(value.value, 4), Text(band, style="dim"))
    return table if table.row_count else None


def _share(share: float) -> str:
    return f"{share * 100:5.1f} % of the GPU" if share >= 0.001 else "below 0.1 %"


def _reason(value: Missing, face: Face) -> Text:
    return Text.assemble(("not known: ", "dim"), face.say(value.reason, "dim"))


def _used(cure: Mapping[str, Any]) -> float | None:
    used = cure.get("used")
    return float(used) if isinstance(used, int | float) and not isinstance(used, bool) else None


def _grid(face: Face, *columns: str) -> Table:
    table = Table.grid(padding=(0, 2 if face.width >= 70 else 1))
    for justify in columns:
        table.add_column(justify="right" if justify == "right" else "left", overflow="fold")
    return table
