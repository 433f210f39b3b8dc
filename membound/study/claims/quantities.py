"""What the report's claims are about and no single quantity of a Run holds: shares and rates made of two, peaks of a series."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from membound.run.quantities import QUANTITIES
from membound.run.schema import Missing, Run, Value
from membound.run.series import GPU_PERIOD

SENSED: Final = 0.1
"""Shortest time over which a Hopper tells how much of its HBM bandwidth was used, s: NVML's GPM, and DCGM that asks it ("100ms is a hard limitation",
NVIDIA/DCGM#310; DCGM's documentation of profiling metrics). Read every 20 ms it says the same five times."""
_HBM_PEAK: Final = "hbm.utilisation.peak"


@dataclass(frozen=True)
class Derived:
    """A quantity made of others."""

    unit: str
    meaning: str
    of: Callable[[Run], Value | Missing]


def read(run: Run, name: str) -> Value | Missing:
    """Quantity `name` of `run`, derived or its own; missing, with the reason, where it cannot be had."""
    if name in DERIVED:
        return DERIVED[name].of(run)
    return run.values.get(name, Missing(f"the Run holds no {name}"))


def unit(name: str) -> str:
    """Unit of the quantity called `name`, derived or not."""
    return DERIVED[name].unit if name in DERIVED else QUANTITIES[name].unit


def _read_share(run: Run) -> Value | Missing:
    read_, write = (run.values.get(f"hbm.traffic.{way}", Missing("no HBM traffic")) for way in ("read", "write"))
    for part in (read_, write):
        if isinstance(part, Missing):
            return part
    assert isinstance(read_, Value)
    assert isinstance(write, Value)
    return _quotient(read_, Value(read_.value + write.value, "B", read_.low + write.low, read_.high + write.high, ""), "reads over all HBM traffic")


def _per_watt(run: Run) -> Value | Missing:
    # FLOP for each token do not depend on clocks: between two Runs of one Job, tokens per joule are FLOP/s per watt.
    rate, power = (run.values.get(name, Missing(f"no {name}")) for name in ("tokens.rate", "gpu.power.mean"))
    for part in (rate, power):
        if isinstance(part, Missing):
            return part
    assert isinstance(rate, Value)
    assert isinstance(power, Value)
    return _quotient(rate, power, "tokens.rate over gpu.power.mean")


def _quotient(over: Value, under: Value, basis: str) -> Value | Missing:
    if under.value <= 0 or under.low <= 0:
        return Missing(f"{basis}: nothing to divide by")
    # The two bands are of one prediction and move together: the quotient's band is that of the wider of the two.
    width = max(over.high / over.value - over.low / over.value, under.high / under.value - under.low / under.value) / 2 if over.value else 0.0
    value = over.value / under.value
    return Value(value, "", value * max(1 - width, 0.0), value * (1 + width), basis)


def _cpu_peak(run: Run) -> Value | Missing:
    table = run.tables.get("host")
    if table is None or "cpu.utilisation" not in table.column_names:
        return Missing("the Run has no series of cpu.utilisation")
    peak = pc.max(table["cpu.utilisation"]).as_py()
    return Missing("no sample of cpu.utilisation") if peak is None else Value(peak, "1", peak, peak, "highest second of the series cpu.utilisation")


def _sensed_peak(run: Run) -> Value | Missing:
    peak, table = run.values.get(_HBM_PEAK, Missing(f"the Run holds no {_HBM_PEAK}")), run.tables.get("gpu")
    if isinstance(peak, Missing) or table is None or "hbm.utilisation" not in table.column_names or peak.value <= 0:
        return peak  # A Run without series, as published ones are, states what its sensor read.
    windows = [float(each.max()) for each in _windows(table)]
    if not windows:
        return Missing(f"no {SENSED * 1e3:.0f} ms of hbm.utilisation without a gap")
    value = max(windows)
    basis = f"highest mean of hbm.utilisation over {SENSED * 1e3:.0f} ms, which is as often as the GPU tells it"
    return Value(value, "1", value * peak.low / peak.value, min(value * peak.high / peak.value, 1.0), basis)


def _windows(table: pa.Table) -> Iterator[npt.NDArray[np.float64]]:
    """Means of `hbm.utilisation` over each `SENSED` seconds, GPU by GPU, those with a sample missing left out."""
    bins = round(SENSED / GPU_PERIOD)
    gpus, use = (table[name].to_numpy() for name in ("gpu", "hbm.utilisation"))
    for gpu in np.unique(gpus):
        own = use[gpus == gpu].astype(np.float64)
        if len(own) >= bins:
            means = np.convolve(own, np.full(bins, 1 / bins), "valid")
            if len(means := means[~np.isnan(means)]):
                yield means


DERIVED: Final[dict[str, Derived]] = {
    "hbm.read.share": Derived("1", "Share of reads in HBM traffic of a step.", _read_share),
    "flops.per.watt": Derived("token/J", "Tokens per joule, which goes as FLOP/s per watt.", _per_watt),
    "hbm.utilisation.peak.sensed": Derived("1", "Highest use of HBM bandwidth that a sensor of 100 ms sees.", _sensed_peak),
    "cpu.utilisation.peak": Derived("1", "Highest second of the node's CPU use.", _cpu_peak),
}
