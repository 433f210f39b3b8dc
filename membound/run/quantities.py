"""The registry: every quantity that a Run may hold, its unit, what it means, and how it is had. `docs/quantities.md` is made from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from membound.errors import InputError, UnitError, UnknownNameError
from membound.run.schema import Missing, Value


@dataclass(frozen=True)
class Quantity:
    """A named thing with a unit. `measured` and `predicted` say how; an empty text: it is not."""

    name: str
    unit: str
    meaning: str
    measured: str
    predicted: str


_TORCH = "PyTorch's own counter, worst rank, whole run"
_NVML = "NVML, sampled every 20 ms"
_ALLOCATOR = "replay of the captured allocations and frees through PyTorch's caching allocator"
_TIMELINE = "captured operations priced by the laws of the machine's kernels, links and host, replayed over their streams"
_L2 = "operands of the captured operations through a tensor-level model of the L2"

_CATEGORIES: Final = {
    "weights": "parameters, master copies and buffers of the model",
    "gradients": "gradients of the trained parameters",
    "optimizer": "optimizer states",
    "activations": "what forward keeps for backward",
    "logits": "logits, the loss and their gradients",
    "communication": "buffers of collectives: gathered parameters, gradient buckets",
    "temporaries": "what lives within one operation or a few, in forward, backward or the optimizer",
    "workspace": "cuBLAS workspaces, which PyTorch takes from its own allocator",
}


def _gpu_memory() -> Iterator[Quantity]:
    yield Quantity(
        "gpu.memory.allocated.peak", "B",
        "Most bytes in live blocks of PyTorch's allocator on one GPU, each rounded as the allocator rounds it.",
        f"torch.cuda.max_memory_allocated: {_TORCH}", _ALLOCATOR,
    )  # fmt: skip
    yield Quantity(
        "gpu.memory.active.peak", "B",
        "As allocated, with blocks that are freed but still await another stream: they cannot be used again yet.",
        f"torch.cuda.memory_stats active_bytes.all.peak: {_TORCH}", _ALLOCATOR,
    )  # fmt: skip
    yield Quantity(
        "gpu.memory.reserved.peak", "B",
        "Most bytes that PyTorch's allocator held of one GPU: allocated, plus what lies cached and in fragments.",
        f"torch.cuda.max_memory_reserved: {_TORCH}", _ALLOCATOR,
    )  # fmt: skip
    yield Quantity(
        "gpu.memory.used.peak", "B",
        "Most memory in use on one GPU as the driver counts it: reserved, CUDA context, and libraries' own memory.",
        f"used memory, without what the driver keeps back: {_NVML}", "reserved + context + libraries",
    )  # fmt: skip
    yield Quantity(
        "gpu.memory.context", "B", "CUDA context of one process with the kernels that it has loaded.",
        "used less reserved, before the first collective", "by GPU architecture, from published readings",
    )  # fmt: skip
    yield Quantity(
        "gpu.memory.libraries", "B", "What libraries take outside PyTorch's allocator, above all NCCL's buffers.",
        "used less reserved less context", "by number of communicators and kind of link, from published readings",
    )  # fmt: skip
    yield Quantity("gpu.memory.capacity", "B", "Memory of one GPU as nvidia-smi prints it.", "NVML memory.total", "the Machine")
    for category, meaning in _CATEGORIES.items():
        yield Quantity(
            f"gpu.memory.{category}", "B", f"Share of the allocated peak, at its moment: {meaning}.",
            "torch.cuda memory history, where it was recorded", "captured storages alive at the allocated peak",
        )  # fmt: skip


def _host_memory() -> Iterator[Quantity]:
    yield Quantity("host.memory.capacity", "B", "Memory of one node.", "/proc/meminfo MemTotal", "the Machine's DIMMs")
    yield Quantity(
        "host.memory.used.peak", "B",
        "Most memory in use on one node, all its ranks and the system together. Page cache can be taken back and does not count.",
        "/proc/meminfo of the node, MemTotal less MemAvailable, sampled every 20 ms", "pageable + pinned + base, at the worst moment",
    )  # fmt: skip
    yield Quantity(
        "host.memory.pinned.peak", "B", "Most page-locked memory that PyTorch held on one node, rounded to powers of two as it does.",
        "torch.cuda.host_memory_stats, summed over the node's ranks", "replay through PyTorch's pinned allocator, times the node's ranks",
    )  # fmt: skip
    yield Quantity(
        "host.memory.pageable.peak", "B", "Most ordinary host memory in tensors on one node, loading included.",
        "resident set of the ranks, less that after import", "captured host storages, times the node's ranks",
    )  # fmt: skip
    yield Quantity(
        "host.memory.base", "B", "Operating system, Python processes and their libraries on one node, without any tensor.",
        "memory in use once all ranks hold a CUDA context", "a fixed sum per node and per rank, an assumption",
    )  # fmt: skip
    yield Quantity(
        "host.memory.bandwidth.mean", "B/s", "Mean traffic between one node's processors and its DIMMs over a step, both directions.",
        "memory controller counters of the processors, where they can be read", _TIMELINE,
    )  # fmt: skip


def _speed() -> Iterator[Quantity]:
    clock = "clock of the host around synchronised steps, median"
    yield Quantity("step.time", "s", "Time of one optimizer step, all its micro-steps included.", clock, _TIMELINE)
    for part, meaning in {
        "forward": "in forward", "backward": "in backward", "optimizer": "in gradient clipping and the optimizer",
        "exposed_communication": "during which only collectives run on the GPU, or it waits in one for a slower rank: what computing does not hide",
        "exposed_offload": "during which no kernel and no collective runs, and copies to or from the host or work on offloaded tensors do",
        "idle": "during which nothing runs on the GPU, no copy goes on and the host does no work on offloaded tensors: it launches too slowly",
    }.items():  # fmt: skip
        how = "events at the phases' borders" if part in {"forward", "backward", "optimizer"} else "profiler trace of one step"
        yield Quantity(f"step.time.{part}", "s", f"Time of a step {meaning}.", how, _TIMELINE)
    rate = "from step.time"
    yield Quantity("tokens.rate", "token/s", "Tokens fed per second and GPU, padding included.", rate, rate)
    yield Quantity("tokens.rate.useful", "token/s", "Tokens fed per second and GPU, padding left out.", rate, rate)
    yield Quantity("samples.rate", "sample/s", "Rows fed per second, all GPUs together.", rate, rate)
    yield Quantity(
        "flops.model", "FLOP", "Operations that the model itself asks for in a step on one GPU; recomputation does not count.",
        "as predicted", "matmuls and attention of the captured step, without recomputed ones",
    )  # fmt: skip
    yield Quantity("mfu", "1", "Model FLOP utilisation: flops.model over step.time, against the GPU's dense peak of the type used.", rate, rate)
    yield Quantity("gpu.busy", "1", "Share of time with at least one kernel running.", f"GPU utilisation: {_NVML}", _TIMELINE)
    yield Quantity("cpu.utilisation.mean", "1", "Mean share of the node's cores in use.", "/proc/stat, sampled every 20 ms", _TIMELINE)


def _traffic() -> Iterator[Quantity]:
    counters = "CUPTI counters, where cupti-python is installed"
    for way in ("read", "write"):
        yield Quantity(f"hbm.traffic.{way}", "B", f"Bytes {way} of one GPU's memory in a step, after its L2 cache.", counters, _L2)
    for kind, meaning in {"mean": "Mean over a step", "peak": "Highest 20 ms bin"}.items():
        yield Quantity(f"hbm.bandwidth.{kind}", "B/s", f"{meaning} of HBM bytes per second on one GPU, both directions.", counters, _TIMELINE)
        yield Quantity(
            f"hbm.utilisation.{kind}", "1", f"{meaning} of HBM bandwidth over the peak at the present memory clock.",
            f"{counters}; otherwise NVML's GPM", _TIMELINE,
        )  # fmt: skip
    yield Quantity(
        "hbm.capacity.utilisation", "1", "gpu.memory.used.peak over gpu.memory.capacity.",
        "from the two", "from the two; above 1 where the Job does not fit",
    )  # fmt: skip
    for way, meaning in {"h2d": "to the GPU", "d2h": "to the host"}.items():
        yield Quantity(f"pcie.bandwidth.{way}.mean", "B/s", f"Mean rate of copies {meaning} over a step, one GPU.", _NVML, _TIMELINE)
    yield Quantity("nvlink.bandwidth.mean", "B/s", "Mean rate that one GPU sends over NVLink in a step.", _NVML, _TIMELINE)


def _power() -> Iterator[Quantity]:
    law = "energy per operation and per byte, under the board's limit"
    heat = "first-order thermal resistance and capacity"
    for kind, meaning in {"mean": "Mean", "peak": "Highest 20 ms reading"}.items():
        yield Quantity(f"gpu.power.{kind}", "W", f"{meaning} of one GPU board's power.", f"instantaneous power: {_NVML}", law)
        yield Quantity(f"gpu.temperature.{kind}", "degC", f"{meaning} of one GPU's die temperature.", _NVML, heat)
        yield Quantity(f"hbm.temperature.{kind}", "degC", f"{meaning} of one GPU's memory temperature.", _NVML, heat)
    yield Quantity("gpu.energy.step", "J", "Energy of one GPU board in a step.", "NVML's energy counter", law)


def _model() -> Iterator[Quantity]:
    yield Quantity("model.parameters", "parameter", "Parameters of the model, all ranks together.", "counted", "counted")
    yield Quantity("model.parameters.trained", "parameter", "Of these, how many train.", "counted", "counted")


_GROUPS: Final = {
    "GPU memory": tuple(_gpu_memory()),
    "Host memory": tuple(_host_memory()),
    "Speed": tuple(_speed()),
    "Traffic": tuple(_traffic()),
    "Power and heat": tuple(_power()),
    "Model": tuple(_model()),
}
QUANTITIES: Final[dict[str, Quantity]] = {quantity.name: quantity for group in _GROUPS.values() for quantity in group}


def quantity(name: str) -> Quantity:
    """The quantity called `name`. Raises `UnknownNameError`."""
    if name not in QUANTITIES:
        raise UnknownNameError("quantity", name, QUANTITIES)
    return QUANTITIES[name]


def validate(values: Mapping[str, Value | Missing]) -> None:
    """Refuse unknown names, other units, numbers that are not finite, and bands that do not hold their value. Raises `InputError`."""
    for name, value in values.items():
        known = quantity(name)
        if isinstance(value, Missing):
            continue
        if value.unit != known.unit:
            raise UnitError(name, value.unit, f"its unit is {known.unit}")
        if not (math.isfinite(value.low) and math.isfinite(value.high) and value.low <= value.value <= value.high):
            raise InputError(name, (value.low, value.value, value.high), "write finite numbers: low <= value <= high")


def markdown() -> str:
    """The text of docs/quantities.md."""
    lines = [
        "# Quantities",
        "",
        "What a Run may hold, in SI units: `1` is a share. Generated from `membound/run/quantities.py`; change it there.",
    ]
    for title, group in _GROUPS.items():
        lines += ["", f"## {title}", "", "| quantity | unit | what it means | measured | predicted |", "| --- | --- | --- | --- | --- |"]
        lines += [f"| `{q.name}` | {q.unit} | {q.meaning} | {q.measured} | {q.predicted} |" for q in group]
    return "\n".join(lines) + "\n"
