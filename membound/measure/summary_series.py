"""Values from the sampler's curves: means over the counted steps, peaks over the whole Run. Each names its sensor and tier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from membound import units
from membound.measure.evidence import MEANS_BETWEEN, NO_STEPS, Evidence, Floats, Values, Window, exact, spread
from membound.run.schema import Missing, Value

# Data transfers per memory clock as NVIDIA's driver states that clock, for HBM and GDDR alike: 2619 MHz x 2 x 5120 bit is an H100's 3.35 TB/s
# (H100 data sheet).
_TRANSFERS: Final = 2
# Readings of a counter that make a difference.
_READINGS: Final = 2
# Share of a window that may lie between the readings around its ends: there a counter is only taken to grow evenly.
_GUESSED: Final = 0.5
# Quantity, table and curve of each mean over the counted steps.
_MEANS: Final = {
    "gpu.busy": ("gpu", "busy"),
    "cpu.utilisation.mean": ("host", "cpu.utilisation"),
    "host.memory.bandwidth.mean": ("host", "memory.bandwidth"),
    "hbm.utilisation.mean": ("gpu", "hbm.utilisation"),
    "pcie.bandwidth.h2d.mean": ("gpu", "pcie.h2d"),
    "pcie.bandwidth.d2h.mean": ("gpu", "pcie.d2h"),
    "nvlink.bandwidth.mean": ("gpu", "nvlink.sent"),
    "gpu.power.mean": ("gpu", "power"),
    "gpu.temperature.mean": ("gpu", "temperature.gpu"),
    "hbm.temperature.mean": ("gpu", "temperature.hbm"),
}
# Quantity and curve of each peak over the whole Run, of the GPU where it is highest.
_PEAKS: Final = {
    "gpu.power.peak": "power",
    "gpu.temperature.peak": "temperature.gpu",
    "hbm.temperature.peak": "temperature.hbm",
    "hbm.utilisation.peak": "hbm.utilisation",
}


def values(evidence: Evidence) -> Values:
    """Traffic, power, heat and load."""
    found: Values = {name: _mean(evidence, name, *curve) for name, curve in _MEANS.items()}
    found |= {name: _peak(evidence, name, curve) for name, curve in _PEAKS.items()}
    return found | _traffic(evidence) | {"gpu.energy.step": _energy(evidence)}


def per_gpu(evidence: Evidence, curve: str) -> list[tuple[Floats, Floats]]:
    """Times and values of a curve inside the window, for each GPU that the job used and that has any."""
    found = [evidence.curve("gpu", curve, gpu, evidence.window) for gpu in evidence.gpus]
    return [each for each in found if each[0].size]


def means_per_gpu(evidence: Evidence, curve: str) -> Floats:
    """Mean of a curve over the window, of each GPU that the job used and that has any."""
    return _means(evidence, "gpu", curve, evidence.gpus)


def _means(evidence: Evidence, table: str, curve: str, keys: Sequence[int | None]) -> Floats:
    found = [evidence.means(table, curve, key, evidence.window) for key in keys]
    return np.array([float(np.average(values, weights=seconds)) for values, seconds in found if values.size])


def _mean(evidence: Evidence, name: str, table: str, curve: str) -> Value | Missing:
    means = _means(evidence, table, curve, evidence.gpus if table == "gpu" else [None])
    if not means.size:
        return Missing(_no_mean(evidence, table, curve))
    return spread(name, float(means.mean()), means, f"{_basis(evidence, table, curve)}, mean over {_when(evidence)}")


def _no_mean(evidence: Evidence, table: str, curve: str) -> str:
    """Why a curve has no mean over the counted steps."""
    tier, source, period = evidence.origin(table, curve)
    window = evidence.window
    if tier not in MEANS_BETWEEN or not any(evidence.curve(table, curve, gpu)[0].size for gpu in evidence.gpus):
        return evidence.reason(table, curve)
    every = f", new every {units.show(period, 's', 2)}" if period else ""
    counted = units.show(window.end - window.start, "s", 2)
    return f"{source}{every}: none is of the {counted} of the counted steps alone (cure: more --steps)"


def _peak(evidence: Evidence, name: str, curve: str) -> Value | Missing:
    highest = [float(each.max()) for gpu in evidence.gpus if (each := evidence.curve("gpu", curve, gpu)[1]).size]
    if not highest:
        return Missing(evidence.reason("gpu", curve))
    return exact(name, max(highest), f"{_basis(evidence, 'gpu', curve)}, highest of the whole run")


def _traffic(evidence: Evidence) -> Values:
    """Bytes and bandwidths of HBM: counted where the curves hold bytes, else from the share of the peak that the driver tells."""
    read, write = per_gpu(evidence, "hbm.read"), per_gpu(evidence, "hbm.write")
    if not read or len(read) != len(write):
        return _from_share(evidence)
    basis = _basis(evidence, "gpu", "hbm.read")
    both = [np.asarray(r + w) for (_, r), (_, w) in zip(read, write, strict=True) if r.size == w.size]
    found: Values = {}
    for way, curves in {"read": read, "write": write}.items():
        rates = np.array([float(each.mean()) for _, each in curves])
        found[f"hbm.traffic.{way}"] = _a_step(evidence, f"hbm.traffic.{way}", rates, basis)
    if both:
        means = np.array([each.mean() for each in both])
        found["hbm.bandwidth.mean"] = spread("hbm.bandwidth.mean", float(means.mean()), means, f"{basis}, mean over {_when(evidence)}")
        found["hbm.bandwidth.peak"] = exact("hbm.bandwidth.peak", max(float(each.max()) for each in both), f"{basis}, highest bin")
    return found


def _a_step(evidence: Evidence, name: str, rates: Floats, basis: str) -> Value | Missing:
    window = evidence.window
    if not window.steps:
        return Missing(f"{NO_STEPS}: bytes a step cannot be told")
    seconds = (window.end - window.start) / window.steps
    return spread(name, float(rates.mean()) * seconds, rates * seconds, f"{basis}, mean rate times the time of a step")


def _from_share(evidence: Evidence) -> Values:
    reason = Missing(evidence.reason("gpu", "hbm.read"))
    found: Values = dict.fromkeys(("hbm.traffic.read", "hbm.traffic.write", "hbm.bandwidth.mean", "hbm.bandwidth.peak"), reason)
    shares, peak = means_per_gpu(evidence, "hbm.utilisation"), _peak_bandwidth(evidence)
    if not shares.size or peak is None:
        return found
    basis = f"{_basis(evidence, 'gpu', 'hbm.utilisation')}, times the peak bandwidth at the memory clock"
    highest = [float(evidence.means("gpu", "hbm.utilisation", gpu, evidence.window)[0].max(initial=0.0)) for gpu in evidence.gpus]
    means = shares * peak
    found["hbm.bandwidth.mean"] = spread("hbm.bandwidth.mean", float(means.mean()), means, f"{basis}, mean over {_when(evidence)}")
    found["hbm.bandwidth.peak"] = exact("hbm.bandwidth.peak", max(highest) * peak, f"{basis}, highest reading")
    return found


def _peak_bandwidth(evidence: Evidence) -> float | None:
    """Of one GPU at the memory clock that the sampler saw, B/s; None where the bus is not known.

    The driver knows its card, whatever the catalogue has: an H200 says 6016 bit, not the 6144 of six whole stacks, and GPM's shares are of that
    (validation/h200/probes.json: 88.1 % while 4.24 TB/s were copied).
    """
    hbm = evidence.plan.machine.get("gpu", {}).get("hbm", {})
    buses = [card["memory_bus_bit"] for card in evidence.cards if card["gpu"] in evidence.gpus and card.get("memory_bus_bit")]
    bus = min(buses, default=None) or hbm.get("bus_width")
    clocks = per_gpu(evidence, "clock.memory")
    if not bus or not clocks:
        return None
    clock = float(np.median(np.concatenate([each for _, each in clocks])))
    return clock * float(hbm.get("transfers_per_clock", _TRANSFERS)) * float(bus) / 8


def _energy(evidence: Evidence) -> Value | Missing:
    """From the counter where it has readings inside the window or at both sides of its ends, per step."""
    name, window = "gpu.energy.step", evidence.window
    if not window.steps:
        return Missing(f"{NO_STEPS}: energy a step cannot be told")
    seconds = (window.end - window.start) / window.steps
    counted = [rate for gpu in evidence.gpus if (rate := _counted(*evidence.curve("gpu", "energy", gpu), window)) is not None]
    if counted:
        rates = np.array(counted) * seconds
        return spread(name, float(rates.mean()), rates, f"{_basis(evidence, 'gpu', 'energy')}, difference over {_when(evidence)}, a step")
    powers = np.array([float(each.mean()) for _, each in per_gpu(evidence, "power")]) * seconds
    if powers.size:
        return spread(name, float(powers.mean()), powers, f"{_basis(evidence, 'gpu', 'power')}, mean times the time of a step")
    return Missing(evidence.reason("gpu", "energy"))


def _counted(times: Floats, counter: Floats, window: Window) -> float | None:
    """Mean increase per s of a counter inside `window`; None where it has too few readings there. Between readings it is taken to grow evenly."""
    # Rows repeat a reading until the next one: only where it changed was it read.
    read = np.flatnonzero(np.diff(counter, prepend=np.nan) != 0)
    times, counter = times[read], counter[read]
    if times.size < _READINGS:
        return None
    begin, end = max(window.start, float(times[0])), min(window.end, float(times[-1]))
    if end <= begin or _straddling(times, begin) + _straddling(times, end) > _GUESSED * (end - begin):
        return None
    first, last = np.interp([begin, end], times, counter)
    return float(last - first) / (end - begin)


def _straddling(times: Floats, moment: float) -> float:
    """Time between the readings before and after `moment`, s; 0 where one was then."""
    after = int(np.searchsorted(times, moment))
    return 0.0 if times[min(after, times.size - 1)] == moment else float(times[after] - times[after - 1])


def _basis(evidence: Evidence, table: str, curve: str) -> str:
    tier, source, period = evidence.origin(table, curve)
    every = f", new every {units.show(period, 's', 2)}" if period else ""
    return f"{tier}: {source}{every}" if tier else source


def _when(evidence: Evidence) -> str:
    return f"{evidence.window.steps} steps" if evidence.window.steps else "the whole run"
