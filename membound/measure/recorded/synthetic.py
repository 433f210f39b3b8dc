"""A made-up H100 at a made-up fine-tune: for tests and demonstrations until a real one has been recorded, and honest about it.

Rates and periods at which its signals change, limits and codes are those of public sources; its watts, shares and degrees are plausible and no
more: nothing may be concluded from them. `python -m membound.measure.recorded.synthetic FOLDER` writes it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from membound.measure.recorded import tracks
from membound.measure.sensors.nvml import NOT_SUPPORTED

NAME: Final = "synthetic-h100"
ABOUT: Final = "Synthetic: made by membound.measure.recorded.synthetic, after public documents; no real machine answered so."
SECONDS: Final = 10.0
# One optimizer step of the made-up job, s: forward, backward, optimizer as shares of it.
_STEP: Final = 1.0
_FORWARD, _BACKWARD = 0.30, 0.85
# 81,559 MiB as nvidia-smi prints for H100 80GB HBM3, and what the driver keeps of it (NVIDIA forums and public nvidia-smi dumps).
_TOTAL, _RESERVED = 81559 * 2**20, 551 * 2**20
# H100 SXM5: both memory clocks, MHz, and the highest core clock, 1980 (NVIDIA/k8s-test-infra, mock NVML, H100 capture).
_MEMORY_CLOCKS: Final = [2619, 1593]
# 5120 bit, two transfers per clock: 3.35 TB/s (NVIDIA H100 data sheet).
_BUS: Final = 5120
_PEAK: Final = 2619e6 * 2 * _BUS / 8
# nvmlClocksEventReasonSwPowerCap (nvidia-ml-py 13.615.71).
_POWER_CAP: Final = 4
# Update periods, s: power by arXiv:2312.02741; energy by wookayin/gpustat's and nvidia-ml-py users' reports; busy flags by the NVML reference.
_POWER_EVERY, _ENERGY_EVERY, _BUSY_EVERY, _GRID = 0.1, 0.02, 1 / 6, 0.02


def _phase(time: float) -> str:
    share = (time % _STEP) / _STEP
    return "forward" if share < _FORWARD else "backward" if share < _BACKWARD else "optimizer"


def _ripple(time: float) -> float:
    """A small wobble between -1 and 1 that repeats with the recording."""
    turns = 2 * math.pi * time / SECONDS
    return 0.6 * math.sin(37 * turns) + 0.4 * math.sin(91 * turns + 1)


def _watts(time: float) -> float:
    return {"forward": 610.0, "backward": 680.0, "optimizer": 430.0}[_phase(time)] + 12 * _ripple(time)


def _mean_mw(time: float) -> int:
    """Mean of the last second."""
    return round(1e3 * sum(_watts(time - 0.02 * k) for k in range(50)) / 50)


def _hbm(time: float) -> tuple[float, float]:
    read, written = {"forward": (0.42, 0.16), "backward": (0.47, 0.22), "optimizer": (0.50, 0.38)}[_phase(time)]
    return (read + 0.02 * _ripple(time)) * _PEAK, (written + 0.01 * _ripple(time + 1)) * _PEAK


def _series(every: float, value: Callable[[float], Any]) -> list[list[Any]]:
    """Changes of a signal that is new every `every` s."""
    found: list[list[Any]] = []
    for place in range(round(SECONDS / every)):
        new = value(place * every)
        if not found or new != found[-1][2]:
            found.append([round(place * every, 6), 0, new])
    return found


def _constant(value: Any) -> list[list[Any]]:
    return [[0.0, 0, value]]


def _fields() -> Iterator[dict[str, Any]]:
    yield tracks.entry("field", 0, _series(_POWER_EVERY, lambda t: round(1e3 * _watts(t))), [186, 0])
    yield tracks.entry("field", 0, _series(_POWER_EVERY, _mean_mw), [185, 0])
    yield tracks.entry("field", 0, _series(_POWER_EVERY, lambda t: round(1e3 * (45 + 60 * sum(_hbm(t)) / _PEAK))), [186, 2])
    energy, spent = [], 4.2e9
    for place in range(round(SECONDS / _ENERGY_EVERY) + 1):
        energy.append([round(place * _ENERGY_EVERY, 6), 0, round(spent)])
        spent += 1e3 * _watts(place * _ENERGY_EVERY) * _ENERGY_EVERY
    yield tracks.entry("field", 0, energy, [83, 0], counter=True)
    yield tracks.entry("field", 0, _series(_STEP, lambda t: 71 + round(_ripple(t))), [82, 0])
    # Deferred: a new memory clock needs the driver loaded anew (NVML_FI_DEV_MCLK_SWITCH_TYPE 1; whether an H100 says so is not known yet).
    yield tracks.entry("field", 0, _constant(1), [298, 0])
    yield tracks.entry("field", 0, [[0.0, NOT_SUPPORTED, None]], [299, 0])


def _calls() -> Iterator[dict[str, Any]]:
    facts: dict[str, Any] = {
        "name": "NVIDIA H100 80GB HBM3 (synthetic)", "uuid": "GPU-00000000-0000-0000-0000-000000000000", "pci_bus": "00000000:00:00.0",
        "compute_capability": [9, 0], "power_limit": 700_000, "supported_memory_clocks": _MEMORY_CLOCKS, "gpm_supported": True, "mig": False,
        "memory_bus": _BUS, "clock.memory": _MEMORY_CLOCKS[0],
    }  # fmt: skip
    yield from (tracks.entry(call, 0, _constant(value)) for call, value in facts.items())
    yield from (tracks.entry(call, -1, _constant(value)) for call, value in {"driver": "synthetic", "nvml": "synthetic"}.items())
    yield tracks.entry("clock.core", 0, _series(_GRID, lambda t: 1980 if _phase(t) != "backward" else 1755 + 15 * round(3 * _ripple(t))))
    yield tracks.entry("event_reasons", 0, _series(_GRID, lambda t: _POWER_CAP if _phase(t) == "backward" else 0))
    yield tracks.entry("power_usage", 0, _series(_POWER_EVERY, _mean_mw))
    yield tracks.entry("temperature", 0, _series(0.5, lambda t: 62 + round(2 * _ripple(t))))
    yield tracks.entry("memory", 0, _series(_GRID, _memory))
    yield tracks.entry("utilisation", 0, _series(_BUSY_EVERY, lambda t: [100, 55 + round(10 * _ripple(t))]))
    # Each direction counts for 20 ms (NVML reference).
    yield tracks.entry("pcie.sent", 0, _series(_GRID, lambda t: 90_000 if _phase(t) == "optimizer" else 4_000), cost_us=20_000)
    yield tracks.entry("pcie.received", 0, _series(_GRID, lambda t: 120_000 if _phase(t) == "optimizer" else 6_000), cost_us=20_000)


def _memory(time: float) -> list[int]:
    share = (time % _STEP) / _STEP
    gib = 46 + (18 * share / _FORWARD if share < _FORWARD else 18 * (1 - (share - _FORWARD) / (_BACKWARD - _FORWARD)) if share < _BACKWARD else 0)
    used = round(gib * 512) * 2 * 2**20
    return [_TOTAL, _RESERVED, _TOTAL - _RESERVED - used, used]


def _monitors() -> Iterator[dict[str, Any]]:
    busy: dict[int, Callable[[float], float]] = {
        1: lambda t: 98.5 + _ripple(t), 2: lambda t: {"forward": 88.0, "backward": 91.0, "optimizer": 97.0}[_phase(t)],
        5: lambda t: {"forward": 52.0, "backward": 58.0, "optimizer": 0.0}[_phase(t)], 10: lambda t: 100 * sum(_hbm(t)) / _PEAK,
        20: lambda t: 88.0 if _phase(t) == "optimizer" else 4.0, 21: lambda t: 117.0 if _phase(t) == "optimizer" else 6.0,
        60: lambda t: 61_000.0 if _phase(t) == "backward" else 900.0, 61: lambda t: 60_500.0 if _phase(t) == "backward" else 850.0,
    }  # fmt: skip
    for metric, value in busy.items():
        yield tracks.entry("gpm", 0, _series(_GRID, lambda t, value=value: round(value(t), 3)), metric)  # type: ignore[misc]
    yield tracks.entry("pm", 0, _series(_GRID, lambda t: [round(rate) for rate in _hbm(t)]))


def _files() -> Iterator[dict[str, Any]]:
    total, free = 2048 * 2**20, 1700 * 2**20
    yield tracks.entry("file", -1, _constant(f"MemTotal:       {total} kB\nMemFree:        {free} kB\nMemAvailable:   {free} kB\n"), "/proc/meminfo")
    yield tracks.entry("file", -1, _constant("processor\t: 0\nmodel name\t: synthetic\nphysical id\t: 0\n"), "/proc/cpuinfo")
    # 96 cores, 12 of them busy, in ticks of 10 ms.
    ticks = [[round(k * 0.1, 6), 0, f"cpu  {120 * k} 0 0 {840 * k} 0 0 0 0 0 0\n"] for k in range(round(SECONDS / 0.1))]
    yield tracks.entry("file", -1, ticks, "/proc/stat")
    drives = [[float(k), 0, f" 259 0 nvme0n1 0 0 {4000 * k} 0 0 0 {9000 * k} 0 0 0 0\n"] for k in range(round(SECONDS))]
    yield tracks.entry("file", -1, drives, "/proc/diskstats")
    yield tracks.entry("file", -1, _constant("7501476528\n"), "/sys/block/nvme0n1/size")


def synthetic() -> dict[str, Any]:
    """The machine as its file has it."""
    entries = [*_calls(), *_fields(), *_monitors(), *_files()]
    return tracks.document(NAME, ABOUT, True, 1, SECONDS, entries)


if __name__ == "__main__":
    tracks.save(synthetic(), Path(sys.argv[1]) / f"{NAME}{tracks.SUFFIX}")
