"""Power of loads, each held for a second and a half, and of some in bursts too short for the board to lower its clock; the driver's energy counter
is read, nothing is set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from membound.measure.calibrate.bench import Bench, Row, Thunk
from membound.measure.calibrate.nvml import Nvml
from membound.measure.calibrate.run import COLUMNS

SETTLE, WINDOW = 0.5, 1.5  # s
# So long at a time, and so long a pause after it, s: a board that would draw a kilowatt draws half of that on average.
BURST, PAUSE = 0.008, 0.012


def rows(bench: Bench) -> Iterator[Row]:
    sensor = None if bench.dry else Nvml()
    for title, shapes, dtype, flops, nbytes, make, notes in _loads(bench):
        row: Row = dict.fromkeys(COLUMNS, "")
        row.update(family="power", op=title, shapes=shapes, dtype=dtype, flops=flops, bytes=nbytes)
        try:
            seconds, reading = _hold(bench, make(), sensor)
            row.update(seconds_warm=f"{seconds:.4g}", power=reading["power"], notes=" ".join(filter(None, (notes, reading["clocks"]))))
        except Exception as error:
            row["notes"] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
        yield row
    if sensor is not None:
        yield from _in_bursts(bench, sensor)


def _in_bursts(bench: Bench, sensor: Nvml) -> Iterator[Row]:
    """The loads that the limit holds back, at full clock: power while they run, that of a board at rest with its clocks up taken from the pauses."""
    resting = _resting(sensor)
    yield {
        **dict.fromkeys(COLUMNS, ""),
        "family": "power",
        "op": "pause",
        "seconds_warm": PAUSE,
        "power": f"{resting:.4g}",
        "notes": "between bursts",
    }
    for title, shapes, dtype, flops, nbytes, make, notes in _loads(bench):
        if title == "idle":
            continue
        row: Row = dict.fromkeys(COLUMNS, "")
        row.update(family="power", op=title, shapes=shapes, dtype=dtype, flops=flops, bytes=nbytes)
        seconds, watts, clocks = _burst(bench, make(), sensor, resting)
        row.update(seconds_warm=f"{seconds:.4g}", power=f"{watts:.4g}", notes=f"{notes} in bursts {clocks}")
        yield row


def _resting(sensor: Nvml) -> float:
    """W between bursts: a short kernel every few milliseconds keeps the clocks up and does next to nothing."""
    one = torch.zeros(1, device="cuda")
    for _ in range(50):
        one.add_(1)
        time.sleep(0.004)
    before, start = sensor.energy(), time.perf_counter()
    while time.perf_counter() - start < WINDOW:
        one.add_(1)
        time.sleep(0.004)
    torch.cuda.synchronize()
    return (sensor.energy() - before) / (time.perf_counter() - start)


def _burst(bench: Bench, run: Thunk, sensor: Nvml, resting: float) -> tuple[float, float, str]:
    """Seconds of a call, W while it runs, and clocks."""
    many, run = _many(bench, run)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    run()
    first.record()
    run()
    last.record()
    torch.cuda.synchronize()
    calls = max(1, round(BURST / (first.elapsed_time(last) * 1e-3)))
    busy, done, before, start = 0.0, 0, 0.0, 0.0
    began = time.perf_counter()
    while True:
        now = time.perf_counter()
        if now - began < SETTLE:
            busy, done, before, start = 0.0, 0, sensor.energy(), now
        elif now - start > WINDOW:
            break
        first.record()
        for _ in range(calls):
            run()
        last.record()
        torch.cuda.synchronize()
        busy += first.elapsed_time(last) * 1e-3
        done += calls * many
        time.sleep(PAUSE)
    spent, whole = sensor.energy() - before, time.perf_counter() - start
    return busy / done, (spent - resting * (whole - busy)) / busy, _clocks(sensor)


Load = tuple[str, str, str, float, float, Callable[[], Thunk], str]


def _loads(bench: Bench) -> Iterator[Load]:
    yield ("idle", "", "", 0.0, 0.0, lambda: lambda: time.sleep(0.01), "")
    for side, dtype, fill, tf32 in (
        (8192, torch.bfloat16, "normal", False),
        (8192, torch.bfloat16, "zeros", False),
        (4096, torch.bfloat16, "normal", False),
        (2048, torch.bfloat16, "normal", False),
        (8192, torch.float32, "normal", True),
        (4096, torch.float32, "normal", False),
    ):
        side = bench.size(side)
        yield _product(bench, side, side, side, dtype, fill, tf32)
    for rows_ in (16, 64, 128, 256, 512):
        yield _product(bench, bench.size(rows_), bench.size(16384), bench.size(16384), torch.bfloat16, "normal", False)
    for count, what in ((1 << 30, "HBM"), (1 << 22, "L2")):
        yield from _streams(bench, bench.size(count), what)
    q = (bench.size(4), bench.size(32), bench.size(4096), bench.size(128))
    flops = 2.0 * q[0] * q[1] * q[2] ** 2 * q[3]
    yield ("attention", ",".join(map(str, q)), "bfloat16", flops, 8.0 * q[0] * q[1] * q[2] * q[3], lambda: _attention(bench, q), "causal")
    yield ("idle", "", "", 0.0, 0.0, lambda: lambda: time.sleep(0.01), "after load")


def _product(bench: Bench, m: int, n: int, k: int, dtype: torch.dtype, fill: str, tf32: bool) -> Load:
    def make() -> Thunk:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        left, right = bench.random(m, k, dtype=dtype), bench.random(n, k, dtype=dtype).t()
        if fill == "zeros":
            left.zero_()
            right.zero_()
        return lambda: torch.mm(left, right)

    name = str(dtype).removeprefix("torch.")
    return ("mm", f"{m},{n},{k}", name, 2.0 * m * n * k, float((m * n + m * k + n * k) * dtype.itemsize), make, fill + (" tf32" if tf32 else ""))


def _streams(bench: Bench, count: int, what: str) -> Iterator[Load]:
    def inputs() -> tuple[torch.Tensor, torch.Tensor]:
        return bench.random(count), bench.random(count)

    def copy() -> Thunk:
        a, b = inputs()
        return lambda: b.copy_(a)

    def read() -> Thunk:
        a, _ = inputs()
        return lambda: a.sum()

    def write() -> Thunk:
        a, _ = inputs()
        return lambda: a.zero_()

    def silu() -> Thunk:
        a, _ = inputs()
        return lambda: F.silu(a)

    yield ("copy", str(count), "bfloat16", 0.0, 4.0 * count, copy, what)
    yield ("sum", str(count), "bfloat16", float(count), 2.0 * count, read, what)
    yield ("zero_", str(count), "bfloat16", 0.0, 2.0 * count, write, what)
    yield ("silu", str(count), "bfloat16", 5.0 * count, 4.0 * count, silu, what)


def _attention(bench: Bench, q: tuple[int, int, int, int]) -> Thunk:
    tensors = [bench.random(*q) for _ in range(3)]
    return lambda: F.scaled_dot_product_attention(*tensors, is_causal=True)


def _hold(bench: Bench, run: Thunk, sensor: Nvml | None) -> tuple[float, dict[str, str]]:
    """Seconds of a call, and watts and clocks, over the window after settling."""
    settle, window = (0.0, 0.01) if bench.dry else (SETTLE, WINDOW)
    many, run = _many(bench, run)
    _keep(bench, run, settle)
    before = sensor.energy() if sensor else 0.0
    start = time.perf_counter()
    calls = _keep(bench, run, window)
    seconds = time.perf_counter() - start
    watts = f"{(sensor.energy() - before) / seconds:.4g}" if sensor else ""
    return seconds / (calls * many), {"power": watts, "clocks": _clocks(sensor) if sensor else "dry"}


def _many(bench: Bench, run: Thunk) -> tuple[int, Thunk]:
    """Short kernels as a CUDA graph of 64, so that the host does not leave the device idle."""
    _keep(bench, run, 0.0)
    start = time.perf_counter()
    calls = _keep(bench, run, 0.0)
    if bench.dry or not 0 < (time.perf_counter() - start) / calls < 2e-4:
        return 1, run
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for _ in range(64):
            run()
    return 64, graph.replay


def _keep(bench: Bench, run: Thunk, seconds: float) -> int:
    """Call for so long, 16 at a time, so that no more are queued than the device does in a moment; how many calls."""
    calls, end = 0, time.perf_counter() + seconds
    while True:
        for _ in range(16):
            run()
        calls += 16
        bench.synchronize()
        if time.perf_counter() >= end:
            return calls


def _clocks(sensor: Nvml) -> str:
    """As they are now, the load just ended."""
    return f"sm {sensor.clock('sm')} MHz, memory {sensor.clock('memory')} MHz, {sensor.temperature()} degC"
