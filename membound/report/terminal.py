"""What a person sees after `membound predict`: the verdict first, then how fast, then where the memory goes, then what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from membound.report import naming, terminal_speed, terminal_tables
from membound.report.terminal_bar import bar
from membound.report.terminal_face import Face, size
from membound.run.schema import Missing, Run, Value


def summary(run: Run) -> RenderableType:
    """The summary of a Run's memory and speed, for any rich console: it fits itself to the width, the colours and the encoding that it finds."""
    return _Summary(run)


@dataclass(frozen=True)
class _Summary:
    run: Run

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        face = Face.of(console, options)
        yield Constrain(Group(*_parts(self.run, face)), face.width)


def _parts(run: Run, face: Face) -> Iterator[RenderableType]:
    capacity = gpu_capacity(run)
    yield from _title(run, face)
    yield _verdict(run, face, capacity)
    drawn = bar(run, face, capacity)
    if drawn:
        yield ""
        yield from drawn
    yield from _section(face, "Speed", terminal_speed.speed(run, face))
    yield from _section(face, "What a faster part would buy", terminal_speed.bounds(run, face), terminal_speed.bought(run, face))
    yield from _section(face, "At the peak", _moment(run, face), terminal_tables.categories(run, face, capacity))
    yield from _section(face, "Largest holdings at the peak", terminal_tables.holdings(run, face))
    yield from _section(face, "Peaks on the GPU", terminal_tables.bands(run, face))
    yield from _section(face, "Peaks on the host, a whole node", terminal_tables.host(run, face), terminal_tables.host_categories(run, face))
    yield from _section(face, terminal_tables.cures_title(run), terminal_tables.cures(run, face))
    yield from _section(face, "What was modelled", *_notes(run, face))


def _section(face: Face, title: str, *parts: RenderableType | None) -> Iterator[RenderableType]:
    shown = [part for part in parts if part is not None]
    if shown:
        yield ""
        yield face.heading(title)
    for part in shown:
        yield Padding(part, (0, 0, 0, 2), expand=False)


def _title(run: Run, face: Face) -> Iterator[RenderableType]:
    how, fed = naming.technique(run), naming.shape(run)
    yield Text.assemble(face.say(naming.model(run), "bold"), ("  " + how) if how else "")
    under = [naming.machine(run), fed, run.origin]
    yield face.say(f" {face.dot} ".join(part for part in under if part), "dim")


def _verdict(run: Run, face: Face, capacity: float | None) -> Panel:
    good = run.fits.gpu and run.fits.host
    lines = [
        _line(face, run.fits.gpu, "THE GPU", "gpu.memory.used.peak", run, capacity),
        _line(face, run.fits.host, "THE HOST", "host.memory.used.peak", run, host_capacity(run)),
    ]
    if run.fits.why:
        lines.append(face.say(run.fits.why))
    style = "green" if good else "red"
    return Panel(Group(*lines), box=box.ASCII if face.ascii else box.HEAVY, border_style=style, padding=(0, 1), width=face.width)


def _line(face: Face, fits: bool, what: str, name: str, run: Run, capacity: float | None) -> Text:
    mark, words, style = (face.yes, "FITS ON", "bold green") if fits else (face.no, "DOES NOT FIT ON", "bold red")
    said = Text.assemble((f"{mark} {words} {what}", style))
    gap = "  " if face.width >= 80 else "\n  "
    value = run.values.get(name)
    if isinstance(value, Missing):
        said.append_text(Text.assemble(f"{gap}peak not known: ", face.say(value.reason)))
    elif isinstance(value, Value):
        said.append(f"{gap}{_against(value, capacity)}")
        if capacity is not None and value.low <= capacity < value.high:
            said.append(f"\n  close: {size(value.low)} to {size(value.high)} is expected", style="yellow")
    return said


def _against(value: Value, capacity: float | None) -> str:
    if capacity is None:
        return f"needs {size(value.value, 4)}"
    spare = capacity - value.value
    if spare >= 0:
        return f"needs {size(value.value, 4)} of {size(capacity)}, {size(spare)} spare"
    return f"needs {size(value.value, 4)}, has {size(capacity)}: {size(-spare)} too much"


def _moment(run: Run, face: Face) -> Text | None:
    moment = run.about.get("moment")
    if not isinstance(moment, Mapping):
        return None
    when, module, line, op = naming.where(moment)
    if not (when or module or line or op):
        return None
    room = face.width - 4
    said = Text.assemble(face.say(when), ", at " if when and (module or line) else "")
    said.append_text(face.tail(module, room, "bold"))
    said.append(", " if module and line else "")
    said.append_text(face.tail(line, room))
    if op:
        said.append(" ")
        said.append_text(face.say(f"({op})", "dim"))
    return said


def _notes(run: Run, face: Face) -> list[RenderableType]:
    notes = run.about.get("notes")
    if isinstance(notes, str):
        notes = [notes]
    if not isinstance(notes, Iterable):
        return []
    table = Table.grid(padding=(0, 1))
    for note in notes:
        table.add_row(Text(face.dot, style="dim"), face.say(note, "dim", 400))
    return [table] if table.row_count else []


def gpu_capacity(run: Run) -> float | None:
    """The GPU's memory, B: as the Run says, else as its machine does; None where neither does."""
    known = run.number("gpu.memory.capacity")
    return known if known is not None else _number(run.machine, "gpu", "hbm", "capacity")


def host_capacity(run: Run) -> float | None:
    """A node's memory, B: as the Run says, else as its machine does; None where neither does."""
    known = run.number("host.memory.capacity")
    if known is not None:
        return known
    capacity, count = (_number(run.machine, "host", "dimms", key) for key in ("capacity", "count"))
    return capacity * count if capacity is not None and count is not None else None


def _number(mapping: object, *keys: str) -> float | None:
    for key in keys:
        mapping = mapping.get(key) if isinstance(mapping, Mapping) else None
    return float(mapping) if isinstance(mapping, int | float) and not isinstance(mapping, bool) and mapping > 0 else None
