"""What all families of measured kernels share: a case, the clock, and the rows that come out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

from membound.measure.calibrate.run import COLUMNS

Row = dict[str, Any]
Thunk = Callable[[], Any]

# A board that would draw more than its limit lowers its clock after some 40 ms, and further after 100: an H200 whose large products begin at
# 805 TFLOP/s goes on at 723, then at 660 (validation/h200/clocks.json). In training they are mixed with kernels that draw less. So kernels are
# measured in bursts, s, that a board allows, with pauses, s, before those that do so many operations.
_BURST: Final = 0.007
_PAUSE: Final = 0.04
_HEAVY: Final = 1e9


@dataclass(frozen=True)
class Case:
    """One kernel or short sequence of kernels: `make` allocates its operands and returns what is timed."""

    family: str
    op: str
    shapes: str
    dtype: str
    flops: float
    nbytes: float
    """Bytes of all operands, each counted once."""
    make: Callable[[], Thunk]
    notes: str = ""
    graph: bool = True
    """Whether it may be recorded as a CUDA graph; what copies from pageable memory or steps an optimizer may not."""


@dataclass(frozen=True)
class Bench:
    """Where and how it is timed. `dry`: on the processor, at sizes that only show that everything runs."""

    device: torch.device
    dry: bool

    def size(self, value: int) -> int:
        """A dimension, cut down where dry."""
        return min(value, 16) if self.dry else value

    def random(self, *sizes: int, dtype: torch.dtype = torch.bfloat16, grad: bool = False) -> torch.Tensor:
        """Normal numbers: power, and with it the clock, hangs on what is multiplied."""
        return torch.empty(*sizes, dtype=dtype, device=self.device).normal_().requires_grad_(grad)

    def integers(self, high: int, *sizes: int) -> torch.Tensor:
        return torch.randint(0, high, sizes, device=self.device)

    def synchronize(self) -> None:
        if not self.dry:
            torch.cuda.synchronize()


def measure(bench: Bench, case: Case) -> Row:
    """The case's row; one that fails keeps its reason in place of times."""
    row: Row = dict.fromkeys(COLUMNS, "")
    row.update(family=case.family, op=case.op, shapes=case.shapes, dtype=case.dtype, bytes=case.nbytes, flops=case.flops, notes=case.notes)
    try:
        run = case.make()
        once = _first(bench, run)
        _rest(bench, case)
        row["seconds_cold"] = f"{_cold(bench, run, once):.4g}"
        _rest(bench, case)
        seconds, how = _warm(bench, run, once, case.graph)
        row["seconds_warm"], row["notes"] = f"{seconds:.4g}", " ".join(filter(None, (case.notes, how)))
    except Exception as error:
        row["notes"] = f"failed: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return row


def _rest(bench: Bench, case: Case) -> None:
    """Let the board's mean power fall before what multiplies: nothing is measured at a clock that something else brought down."""
    if not bench.dry and case.flops >= _HEAVY:
        time.sleep(_PAUSE)


def _first(bench: Bench, run: Thunk) -> float:
    """Seconds of a call once libraries have chosen their kernels; sets how often it is repeated."""
    run()
    run()
    bench.synchronize()
    start = time.perf_counter()
    run()
    bench.synchronize()
    return time.perf_counter() - start


_FLUSH: list[torch.Tensor] = []


def flush(bench: Bench) -> None:
    """Write more than any L2 holds: 512 MiB, also long enough for the host to queue what follows."""
    if not _FLUSH:
        _FLUSH.append(torch.empty(1 << (12 if bench.dry else 29), dtype=torch.uint8, device=bench.device))
    _FLUSH[0].zero_()


def _cold(bench: Bench, run: Thunk, once: float) -> float:
    """Median over single calls, each after a flush of the L2; the empty pair of events is its own case."""
    if bench.dry:
        return _host_seconds(run, 2)
    times = []
    for _ in range(_between(4, int(2 * _BURST / (once + 2e-4)), 15)):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush(bench)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(float(start.elapsed_time(end)) * 1e-3)
    return statistics.median(times)


def _warm(bench: Bench, run: Thunk, once: float, graph: bool) -> tuple[float, str]:
    """Mean over calls back to back, replayed as a CUDA graph so that the host does not hold them up; where that fails, launched one by one."""
    if bench.dry:
        return _host_seconds(run, 2), "dry"
    repeats = _between(2, int(_BURST / once), 64)
    recorded = _record(run, repeats) if graph else None
    replay = recorded.replay if recorded else lambda: [run() for _ in range(repeats)]
    replay()
    torch.cuda.synchronize()
    rounds = _between(1, int(2 * _BURST / (once * repeats)), 5)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(rounds):
        replay()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) * 1e-3 / (rounds * repeats), "graph" if recorded else "loop"


def _record(run: Thunk, repeats: int) -> torch.cuda.CUDAGraph | None:
    """So many calls as a CUDA graph; none where they cannot be recorded."""
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            for _ in range(repeats):
                run()
    except Exception:
        # A recording that failed leaves the random numbers' generator in the middle of it: give it a state of its own.
        torch.cuda.default_generators[0].graphsafe_set_state(torch.Generator(device="cuda"))
        torch.cuda.synchronize()
        return None
    return graph


def _host_seconds(run: Thunk, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))


def name(dtype: torch.dtype) -> str:
    """As the Trace writes it."""
    return str(dtype).removeprefix("torch.")


def timed(bench: Bench, cases: Iterator[Case]) -> Iterator[Row]:
    """Rows of cases, memory given back after each."""
    for case in cases:
        yield measure(bench, case)
        if not bench.dry and torch.cuda.memory_reserved() > 0.5 * torch.cuda.get_device_properties(0).total_memory:
            torch.cuda.empty_cache()
