"""What the sampler costs and how well it keeps its grid: `python benchmarks/sampler.py [--seconds 60] [--gpus 8] [--busy N] [--machine NAME]`.

Records a machine (a recorded one by default; `real` is this one) while N processes keep the cores busy, and prints drift, errors, missed ticks,
shares of a core and the size of an hour. The size is of an hour of made-up rows, written as a recording writes them, in which every signal has a
new, random value as often as the real one has: repeated readings would be flattered.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from membound.measure import parts
from membound.measure.recording import Recording, Source, read
from membound.measure.ring import Layout
from membound.measure.sensors import columns

PERIOD = 0.02
SECONDS_A_PART = 10
# Of each GPU column: ticks between new values, distinct values. Steps of 15 MHz, 2 MiB, a degree, a milliwatt, a percent; counters in full.
SIGNALS = {
    "busy": (6, 2**53), "hbm.read": (1, 2**53), "hbm.write": (1, 2**53), "hbm.utilisation": (6, 2**53), "memory.used": (1, 40_000),
    "power": (5, 700_000), "power.average": (5, 700_000), "memory.power": (5, 100_000), "clock.core": (1, 30), "clock.memory": (500, 2),
    "temperature.gpu": (25, 40), "temperature.hbm": (50, 40), "pcie.h2d": (6, 2**53), "pcie.d2h": (6, 2**53), "nvlink.sent": (6, 2**53),
    "nvlink.received": (6, 2**53), "sm.utilisation": (6, 2**53), "tensor.utilisation": (6, 2**53), "memory.busy": (8, 100), "throttle": (10, 4),
}  # fmt: skip


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep as many cores busy."""
    started = [multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) for _ in range(processes)]
    for each in started:
        each.start()
    time.sleep(1.0)
    try:
        yield
    finally:
        for each in started:
            each.kill()


def _spin() -> None:
    while True:
        pass


def grid(machine: str, gpus: int, seconds: float, folder: Path, hbm: str) -> None:
    """Record, and print what the recording says of itself."""
    with Recording(folder, Source(machine, None if machine == "real" else gpus), PERIOD, hbm=hbm):
        time.sleep(seconds)
    samples = read(folder)
    if not samples.manifest["gpus"]:
        print("no GPU here: only the host was recorded")
        return
    late = samples.freshness()["late"].drop_null().to_numpy()
    several = samples.manifest["gpus"]
    # Drift: how much later the last second's readings are than the first's.
    second = round(len(several) / PERIOD)
    kept, costs = samples.manifest["grid"], samples.manifest["sampler"]
    print(f"{len(several)} GPUs, {seconds:.0f} s, priority: {costs['priority']}")
    print(f"  drift over the run        {1e3 * (np.median(late[-second:]) - np.median(late[:second])):+.3f} ms")
    print(f"  error: median, p99, most  {1e3 * kept['median_error_s']:.3f}, {1e3 * kept['p99_error_s']:.3f}, {1e3 * kept['worst_error_s']:.3f} ms")
    print(f"  ticks missed              {kept['missed']} of {kept['due']} ({kept['missed_share']:.3%})")
    print(f"  rows without a reading    {kept['rows_without_reading']:.3%}")
    print(f"  sampler, drainer          {costs['cpu_share']:.2%}, {costs['drain_cpu_s'] / seconds:.2%} of one core")
    print(f"  size of this recording    {size(folder) / 1e6:.2f} MB")


def hour(gpus: int, hbm: str, folder: Path) -> None:
    """Write an hour of made-up rows, and print what it takes."""
    random = np.random.default_rng(20261125)
    rows_a_part = round(SECONDS_A_PART / PERIOD)
    begin = time.process_time()
    for place in range(3600 // SECONDS_A_PART):
        parts.write(folder, "gpu", _rows(random, place * rows_a_part, rows_a_part, gpus, hbm))
        parts.join(folder, "gpu")
    parts.join(folder, "gpu", everything=True)
    print(f"an hour of {gpus} GPUs, hbm {hbm}: {size(folder) / 1e6:.1f} MB, {time.process_time() - begin:.0f} s of one core to write")


def _rows(random: np.random.Generator, first: int, ticks: int, gpus: int, hbm: str) -> Any:
    rows = np.zeros(ticks * gpus, Layout(len(columns.GPU)).dtype)
    rows["number"] = np.arange(first * gpus, (first + ticks) * gpus)
    rows["tick"] = np.repeat(np.arange(first, first + ticks), gpus)
    rows["key"] = np.tile(np.arange(gpus), ticks)
    rows["late"], rows["took"] = random.gamma(2, 100, len(rows)), random.gamma(9, 20, len(rows))
    for slot, curve in enumerate(columns.GPU):
        if curve == "energy":
            rows["values"][:, slot] = 1e6 + rows["tick"] * 13.0 + random.integers(0, 3000, len(rows)) * 1e-3
            continue
        every, distinct = SIGNALS[curve]
        every = 1 if hbm == "pm" and curve == "hbm.utilisation" else every
        if hbm != "pm" and curve in {"hbm.read", "hbm.write"}:
            rows["codes"][:, slot] = 7
            continue
        new = random.integers(0, distinct, (-(-ticks // every), gpus)) / distinct
        rows["values"][:, slot] = np.repeat(new, every, axis=0)[:ticks].reshape(-1)
        rows["fresh"] |= np.where((rows["tick"] - first) % every == 0, np.uint64(1 << slot), np.uint64(0))
    return rows


def size(folder: Path) -> int:
    """Bytes of all files in `folder`."""
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="processes that keep cores busy meanwhile")
    parser.add_argument("--machine", default="synthetic-h100")
    parser.add_argument("--hbm", default="auto", choices=["auto", "pm"])
    parser.add_argument("--hour", action="store_true", help="the size of an hour of eight GPUs alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if not options.hour:
            with busy(options.busy):
                for gpus in options.gpus:
                    grid(options.machine, gpus, options.seconds, Path(place) / f"grid-{gpus}", options.hbm)
        for hbm in ("auto", "pm"):
            folder = Path(place) / f"hour-{hbm}"
            folder.mkdir()
            hour(8, hbm, folder)


if __name__ == "__main__":
    main()
