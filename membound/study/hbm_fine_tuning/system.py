"""Tables 1 and 2: the system under test as the report prints it, beside the Machine that ours was replayed on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from membound.report.charts.data import Cell, Column
from membound.report.charts.scale import plain, say
from membound.report.charts.table import Table
from membound.spec.machine import Machine
from membound.study.hbm_fine_tuning.book import rows

_GPU: Final[Mapping[str, Callable[[Machine], str]]] = {
    "Model": lambda machine: machine.gpu.name,
    "Form factor": lambda machine: f"{machine.gpus} x {machine.gpu.name}",
    "GPU max frequency": lambda machine: say(machine.gpu.clock.max, "Hz"),
    "Memory max frequency": lambda machine: say(machine.gpu.hbm.clock, "Hz"),
    "Memory capacity": lambda machine: f"{say(machine.gpus * machine.gpu.hbm.capacity, 'B', 4)}; {say(machine.gpu.hbm.capacity, 'B', 3)} each",
    # The report adds up both directions.
    "NVSwitch GPU-to-GPU bandwidth": lambda machine: say(2 * (machine.links.nvlink or 0.0), "B/s"),
    "Total aggregate HBM bandwidth": lambda machine: say(machine.gpus * machine.gpu.hbm.bandwidth, "B/s"),
    "GPU max operating temp": lambda machine: say(machine.gpu.temperature.max_operating, "degC"),
    "GPU shutdown temp": lambda machine: say(machine.gpu.temperature.shutdown, "degC"),
    "Memory max operating temp": lambda machine: say(machine.gpu.hbm.max_temperature, "degC"),
    "Power limit": lambda machine: say(machine.gpu.power.limit, "W"),
}
_HOST: Final[Mapping[str, Callable[[Machine], str]]] = {
    "Model": lambda machine: machine.host.cpu,
    "Core(s) per socket": lambda machine: str(machine.host.cores_per_socket),
    "Socket(s)": lambda machine: str(machine.host.sockets),
    "CPU max speed": lambda machine: say(machine.host.clock, "Hz"),
    "L3 cache": lambda machine: say(machine.host.l3, "B"),
    "Memory type": lambda machine: f"{machine.host.dimms.count} x {say(machine.host.dimms.capacity, 'B')} {machine.host.dimms.kind}",
    "Total memory capacity": lambda machine: say(machine.host.capacity, "B"),
    "Memory speed": lambda machine: f"{plain(machine.host.speed / 1e6, 4).replace(',', '')} MT/s",
    "DIMMs/channel": lambda machine: f"{machine.host.dimms_per_channel} in each of {machine.host.channels} channels",
}
_TITLES: Final = {"1": "GPUs of the system under test", "2": "Host of the system under test"}


def table(machine: Machine, number: str) -> Table:
    """Table 1, the GPUs, or 2, the host."""
    known = _GPU if number == "1" else _HOST
    found: list[tuple[Cell, ...]] = []
    for row in rows("system.csv"):
        if row["table"] == number:
            ours = known.get(row["row"])
            found.append((row["row"], row["published"], "not part of a Machine" if ours is None else ours(machine)))
    source = machine.gpu.source if number == "1" else machine.host.source
    return Table(
        title=_TITLES[number], label=f"Table {number}", columns=(Column(""), Column("published"), Column(machine.name)), rows=tuple(found),
        says=f"Ours is the catalogue's {machine.name}: {machine.source}.", source=source,
    )  # fmt: skip
