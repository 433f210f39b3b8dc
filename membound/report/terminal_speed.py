"""The speed part of the terminal summary: how long a step takes, what it uses, what it hangs on, and what a faster part would buy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from rich.table import Table
from rich.text import Text

from membound.report.terminal_face import Face
from membound.run.schema import Missing, Run, Value
from membound.units import show

NAMES: Final = {
    "compute": "compute", "hbm": "HBM", "fixed": "kernels' starts", "launch": "launching", "nvlink": "NVLink", "network": "network", "pcie": "PCIe",
    "ddr": "host DDR", "host_compute": "host cores", "nvme": "NVMe",
}  # fmt: skip
"""The resources of a step, as people call them."""
_HOST: Final = ("pcie", "ddr", "host_compute", "nvme")
# Below this share of a step, a resource is not worth a line.
_LITTLE: Final = 0.005
_SHOWN: Final = 6
_BAR: Final = 30


def speed(run: Run, face: Face) -> Table | None:
    """Step time with its band, rates, and what is used meanwhile. None where the Run says nothing of time."""
    step = run.values.get("step.time")
    if step is None:
        return None
    table = Table.grid(padding=(0, 2 if face.width >= 70 else 1))
    table.add_column()
    table.add_column(overflow="fold")
    if isinstance(step, Missing):
        table.add_row("step", Text.assemble(("not known: ", "dim"), face.say(step.reason, "dim")))
        return table
    for label, said in _lines(run, step, face):
        table.add_row(label, said)
    return table


def bounds(run: Run, face: Face) -> Table | None:
    """What the step hangs on, the most first: by how many per cent it gets shorter where each gets one per cent faster."""
    shares = _sensitivity(run)
    found = sorted(shares.items(), key=lambda item: -item[1])
    table = Table.grid(padding=(0, 2 if face.width >= 70 else 1))
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True, overflow="crop")
    table.add_column(justify="right", no_wrap=True)
    room = min(_BAR, max(face.width - 40, 0))
    for name, share in [item for item in found if item[1] >= _LITTLE][:_SHOWN]:
        bar = ("#" if face.ascii else "█") * round(share * room)
        table.add_row(face.say(NAMES.get(name, name), "", 24), Text(bar, style="cyan"), Text(f"{share:.2f} %"))
    return table if table.row_count else None


def bought(run: Run, face: Face) -> Text | None:
    """How to read the bars, with the largest as the example."""
    shares, step = _sensitivity(run), run.number("step.time")
    if not shares or not step:
        return None
    name, share = max(shares.items(), key=lambda item: item[1])
    saved = show(step * share / 100, "s")
    return face.say(_spelt(f"{NAMES.get(name, name)} 1 % faster: a step {share:.2f} % ({saved}) shorter; all together: 1 %", face), "dim")


def _lines(run: Run, step: Value, face: Face) -> Iterator[tuple[str, Text]]:
    band = "" if step.low == step.high else f"  {show(step.low, 's')} to {show(step.high, 's')}"
    yield "step", Text.assemble(_spelt(show(step.value, "s", 4), face), (_spelt(band, face), "dim"))
    yield from _line(face, "tokens/s GPU", _count(run, "tokens.rate.useful", "useful"), _count(run, "tokens.rate", "with padding"))
    yield from _line(face, "GPU", _share(run, "mfu", "MFU"), _share(run, "gpu.busy", "busy"))
    yield from _line(face, "HBM", _traffic(run), _share(run, "hbm.utilisation.mean", "used"), _share(run, "hbm.utilisation.peak", "at its peak"))
    yield from _line(face, "power", _amount(run, "gpu.power.mean", "mean"), _amount(run, "gpu.power.peak", "peak"))
    yield from _line(face, "hottest", _amount(run, "gpu.temperature.peak", "die"), _amount(run, "hbm.temperature.peak", "HBM"))
    if _offloaded(run):
        ddr, cpu = _amount(run, "host.memory.bandwidth.mean", "DDR"), _share(run, "cpu.utilisation.mean", "CPU")
        yield from _line(face, "host", ddr, cpu, _amount(run, "step.time.exposed_offload", "of a step waiting for it"))


def _line(face: Face, label: str, *parts: str | None) -> Iterator[tuple[str, Text]]:
    said = f" {face.dot} ".join(part for part in parts if part is not None)
    if said:
        yield label, face.say(_spelt(said, face))


def _spelt(text: str, face: Face) -> str:
    # The only sign of a unit that ASCII lacks.
    return text.replace("µ", "u") if face.ascii else text


def _count(run: Run, name: str, words: str) -> str | None:
    value = run.number(name)
    return None if value is None else f"{value:,.0f} {words}" if value >= 100 else f"{value:,.3g} {words}"


def _share(run: Run, name: str, words: str) -> str | None:
    value = run.number(name)
    return None if value is None else f"{value * 100:.0f} % {words}"


def _amount(run: Run, name: str, words: str) -> str | None:
    value = run.values.get(name)
    return f"{show(value.value, value.unit)} {words}" if isinstance(value, Value) else None


def _traffic(run: Run) -> str | None:
    read, written = run.number("hbm.traffic.read"), run.number("hbm.traffic.write")
    if read is None or written is None or read + written <= 0:
        return None
    return f"{show(read + written, 'B')} a step, {read / (read + written) * 100:.0f} % read"


def _offloaded(run: Run) -> bool:
    recipe = run.job.get("recipe")
    offload = recipe.get("offload") if isinstance(recipe, Mapping) else None
    asked = isinstance(offload, Mapping) and any(place not in {"none", None} for place in offload.values())
    return asked or sum(_sensitivity(run).get(name, 0.0) for name in _HOST) >= _LITTLE


def _sensitivity(run: Run) -> dict[str, float]:
    found = run.about.get("sensitivity")
    if not isinstance(found, Mapping):
        return {}
    return {str(name): float(share) for name, share in found.items() if isinstance(share, int | float) and not isinstance(share, bool)}
