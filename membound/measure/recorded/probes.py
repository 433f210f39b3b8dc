"""What documents leave open about a GPU's sensors, found out by asking: read-only, a few seconds each. Numbers in µs and s; null: not to be had."""

from __future__ import annotations

import functools
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from membound.measure.recorded.recorder import FIELDS
from membound.measure.sensors import gpm
from membound.measure.sensors.doors import Doors
from membound.measure.sensors.nvml import LIVE_CALLS, STATIC_CALLS, Nvml, Refused

_ASKED: Final = 200
# ... and no longer for any of them, s.
_LONGEST: Final = 1.0
# Intervals between two GPM snapshots to try, s, and how many pairs of each for each second of watching.
_INTERVALS: Final = (0.02, 0.05, 0.1, 0.12, 0.2)
_PAIRS: Final = 8
# GPM: share of the memory bandwidth, and PCIe's rate, which comes back as 0 where the window is not valid.
_DRAM, _PCIE = 10, 21


def probe(doors: Doors, gpu: int, seconds: float) -> dict[str, Any]:
    """All probes of one GPU; each signal is watched for `seconds`."""
    nvml = doors.nvml()
    return {
        "gpu": gpu,
        "name": _asked(lambda: nvml.ask("name", gpu)),
        "driver": _asked(lambda: nvml.ask("driver")),
        "user_id": os.getuid(),
        "costs": costs(nvml, gpu, min(seconds, _LONGEST)),
        "changes": changes(nvml, gpu, seconds),
        "gpm": gpm_validity(nvml, gpu, math.ceil(_PAIRS * seconds)),
        "pm": pm_against_gpm(doors, nvml, gpu, seconds),
    }


def _asked(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Refused as refused:
        return {"code": refused.code}


def costs(nvml: Nvml, gpu: int, seconds: float) -> dict[str, Any]:
    """Per call: its answer or return code, median and 99th percentile of its time, µs."""
    calls: dict[str, Callable[[], Any]] = {call: functools.partial(nvml.ask, call, gpu) for call in (*STATIC_CALLS, *LIVE_CALLS)}
    calls |= {f"field.{each[0]}.{each[1]}": functools.partial(nvml.fields, gpu, [each]) for each in FIELDS}
    calls["fields, batch of five"] = lambda: nvml.fields(gpu, [(186, 0), (185, 0), (186, 2), (83, 0), (82, 0)])
    held: list[Any] = []
    calls["gpm_take"] = lambda: held.append(nvml.gpm_take(gpu, held.pop() if held else None))
    return {name: _cost(call, seconds) for name, call in calls.items()}


def _cost(call: Callable[[], Any], seconds: float) -> dict[str, Any]:
    answer = _asked(call)
    times: list[float] = []
    until = time.monotonic() + seconds
    while len(times) < _ASKED and time.monotonic() < until:
        before = time.perf_counter()
        _asked(call)
        times.append((time.perf_counter() - before) * 1e6)
    ranked = sorted(times)
    return {
        "answer": repr(answer)[:200],
        "median_us": statistics.median(ranked),
        "p99_us": ranked[int(0.99 * (len(ranked) - 1))],
        "asked": len(ranked),
    }


def changes(nvml: Nvml, gpu: int, seconds: float) -> dict[str, Any]:
    """Per signal, asked as often as can be: how often it changes, and for fields whether the driver's time stamp moves with the value."""
    quick = [call for call in LIVE_CALLS if not call.startswith("pcie")]
    signals: dict[str, list[tuple[float, Any, int]]] = {name: [] for name in (*quick, *(f"field.{field}.{scope}" for field, scope in FIELDS))}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for call in quick:
            signals[call].append((time.monotonic(), repr(_asked(functools.partial(nvml.ask, call, gpu))), 0))
        now = time.monotonic()
        answers = _asked(lambda: nvml.fields(gpu, FIELDS))
        if isinstance(answers, list):
            for (field, scope), (code, value, stamp) in zip(FIELDS, answers, strict=True):
                signals[f"field.{field}.{scope}"].append((now, (code, value), stamp))
    return {name: _changes(looks) for name, looks in signals.items()}


def _changes(looks: Sequence[tuple[float, Any, int]]) -> dict[str, Any]:
    pairs = list(itertools.pairwise(looks))
    times = [after[0] for before, after in pairs if after[1] != before[1]]
    gaps = sorted(after - before for before, after in itertools.pairwise(times))
    moved = sum(after[2] != before[2] for before, after in pairs)
    found: dict[str, Any] = {"looks": len(looks), "changes": len(times), "stamps_moved": moved, "last": repr(looks[-1][1])[:80] if looks else None}
    found |= {"median_gap_s": None, "shortest_gap_s": None, "longest_gap_s": None}
    if gaps:
        found |= {"median_gap_s": statistics.median(gaps), "shortest_gap_s": gaps[0], "longest_gap_s": gaps[-1]}
    return found


def gpm_validity(nvml: Nvml, gpu: int, pairs: int) -> dict[str, Any]:
    """Per interval: which part of the windows has a share, which part has a rate that is not 0, and the mean share of memory bandwidth."""
    try:
        return {f"{interval:g}": _windows(nvml, gpu, interval, pairs) for interval in _INTERVALS}
    except Refused as refused:
        return {"code": refused.code}


def _windows(nvml: Nvml, gpu: int, interval: float, pairs: int) -> dict[str, Any]:
    last, spare, dram, rates = nvml.gpm_take(gpu), None, [], []
    for _ in range(pairs):
        time.sleep(interval)
        now = nvml.gpm_take(gpu, spare)
        (code, share), (rate_code, rate) = nvml.gpm_between(last, now, (_DRAM, _PCIE))
        dram.append(share if code == 0 and math.isfinite(share) else None)
        rates.append(rate if rate_code == 0 and math.isfinite(rate) else None)
        last, spare = now, last
    valid = [share for share in dram if share is not None]
    return {
        "windows": len(dram), "shares_valid": len(valid) / len(dram), "shares_not_zero": sum(share > 0 for share in valid) / len(dram),
        "rates_not_zero": sum(bool(rate) for rate in rates) / len(rates), "dram_mean_percent": statistics.fmean(valid) if valid else None,
    }  # fmt: skip


def pm_against_gpm(doors: Doors, nvml: Nvml, gpu: int, seconds: float) -> dict[str, Any]:
    """HBM bytes by performance-monitor sampling at 20 ms, and GPM's share over the same time; or why not."""
    try:
        session = doors.pm(gpu, 0.02)
    except Exception as error:
        return {"missing": f"{type(error).__name__}: {error}"}
    try:
        session.samples()
        first, begin = _asked(lambda: nvml.gpm_take(gpu)), time.monotonic()
        samples = []
        while time.monotonic() - begin < max(seconds, 2 * gpm.PERIOD):
            time.sleep(0.02)
            samples += session.samples()
        shares = _asked(lambda: nvml.gpm_between(first, nvml.gpm_take(gpu), (_DRAM,)))
    finally:
        session.close()
    lengths = [end - start for start, end, _, _ in samples[1:]]
    passed = sum(lengths) * 1e-9
    clock, bus = _asked(lambda: nvml.ask("clock.memory", gpu)), _asked(lambda: nvml.ask("memory_bus", gpu))
    return {
        "intervals": len(samples), "median_interval_ms": statistics.median(lengths) * 1e-6 if lengths else None,
        "read_b_per_s": sum(each[2] for each in samples[1:]) / passed if passed else None,
        "written_b_per_s": sum(each[3] for each in samples[1:]) / passed if passed else None,
        "gpm_dram_percent": shares[0][1] if isinstance(shares, list) and math.isfinite(shares[0][1]) else None,
        "clock_mhz": clock, "bus_bit": bus,
    }  # fmt: skip
