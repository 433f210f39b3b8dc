"""Values of memory: PyTorch's own counters of each rank, the driver's view of the GPU, the host's of itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from membound import units
from membound.measure.evidence import Evidence, Values, exact
from membound.run.quantities import QUANTITIES
from membound.run.schema import Missing, Value

_COUNTERS: Final = {
    "allocated": "torch.cuda.max_memory_allocated",
    "active": "torch.cuda.memory_stats active_bytes.all.peak",
    "reserved": "torch.cuda.max_memory_reserved",
}
_NO_GPU: Final = "the job ran on the host's processors: no GPU memory was used"
_NOT_OURS: Final = "a watched command's own allocator cannot be asked from outside"


def values(evidence: Evidence) -> Values:
    """Everything under gpu.memory and host.memory but bandwidth."""
    return {**_allocator(evidence), **_driver(evidence), **_categories(evidence), **_host(evidence), **_pinned_and_pageable(evidence)}


def _peaks(evidence: Evidence) -> dict[int, dict[str, Any]]:
    """The last peaks that each rank wrote down."""
    return {rank: lines[-1] for rank, lines in evidence.facts("peaks").items()}


def _why_no_allocator(evidence: Evidence) -> str:
    if evidence.plan.command is not None:
        return _NOT_OURS
    return _NO_GPU if evidence.plan.device == "cpu" else f"no rank came so far as to say: {evidence.outcome.said}"


def _allocator(evidence: Evidence) -> Values:
    found: Values = {}
    peaks = _peaks(evidence)
    for key, counter in _COUNTERS.items():
        name = f"gpu.memory.{key}.peak"
        said = [line[key] for line in peaks.values() if line.get(key) is not None]
        if said:
            found[name] = exact(name, max(said), f"{counter}, worst rank, whole run")
            continue
        sampled = [line[key] for lines in evidence.facts("memory").values() for line in lines if key in line]
        if sampled:
            found[name] = exact(name, max(sampled), "most that was sampled before the process was killed: it may have been more")
        else:
            found[name] = Missing(_why_no_allocator(evidence))
    return found


def _driver(evidence: Evidence) -> Values:
    capacity, used = _capacity(evidence), _used(evidence)
    share: Value | Missing = (
        exact("hbm.capacity.utilisation", used.value / capacity.value, "gpu.memory.used.peak over gpu.memory.capacity")
        if isinstance(used, Value) and isinstance(capacity, Value)
        else used
        if isinstance(used, Missing)
        else capacity
    )
    return {
        "gpu.memory.capacity": capacity,
        "gpu.memory.used.peak": used,
        "hbm.capacity.utilisation": share,
        "gpu.memory.context": _context(evidence),
        "gpu.memory.libraries": _libraries(evidence),
    }


def _capacity(evidence: Evidence) -> Value | Missing:
    name = "gpu.memory.capacity"
    totals = [card["memory_total_b"] for card in evidence.cards if card["gpu"] in evidence.gpus and card.get("memory_total_b")]
    if totals:
        return exact(name, min(totals), "NVML memory.total")
    known = evidence.plan.machine.get("gpu", {}).get("hbm", {}).get("capacity")
    if known and evidence.plan.device == "cuda":
        return exact(name, known, "the catalogue's entry of this GPU")
    return Missing(_NO_GPU if evidence.plan.device == "cpu" and evidence.plan.command is None else evidence.reason("gpu", "memory.used"))


def _used(evidence: Evidence) -> Value | Missing:
    name = "gpu.memory.used.peak"
    if evidence.plan.device == "cpu" and evidence.plan.command is None:
        return Missing(_NO_GPU)
    sampled = [float(curve.max()) for gpu in evidence.gpus if (curve := evidence.curve("gpu", "memory.used", gpu)[1]).size]
    asked = [float(line["used"]) for line in _peaks(evidence).values() if line.get("used") is not None]
    if not sampled + asked:
        return Missing(evidence.reason("gpu", "memory.used"))
    _, source, period = evidence.origin("gpu", "memory.used")
    grid = max(evidence.plan.options.period, period or 0.0)
    return exact(name, max(sampled + asked), f"{source or 'NVML'}, every {units.show(grid, 's', 2)} and after the last step, worst GPU, whole run")


def _contexts(evidence: Evidence) -> dict[int, tuple[float, float]]:
    """By rank: what its GPU held before it came, and what its context took; B."""
    found = {}
    for rank, lines in evidence.facts("context").items():
        gpu = evidence.gpu_of.get(rank, evidence.gpus[0] if len(evidence.gpus) == 1 else -1)
        _, used = evidence.curve("gpu", "memory.used", gpu)
        if used.size and lines[0].get("used") is not None:
            # The sampler is there before the job.
            before = float(used[0])
            found[rank] = before, float(lines[0]["used"]) - before - float(lines[0]["reserved"])
    return found


def _context(evidence: Evidence) -> Value | Missing:
    taken = [context for _, context in _contexts(evidence).values()]
    if not taken:
        return Missing(_NO_GPU if evidence.plan.device == "cpu" else "nobody asked the driver between the context and the first tensor")
    return exact("gpu.memory.context", max(taken), "memory used with the context, less that before it, less what PyTorch reserved; NVML")


def _libraries(evidence: Evidence) -> Value | Missing:
    """At one moment, after the last step: what the driver counts beyond PyTorch's own, the context and what was there before."""
    contexts, peaks = _contexts(evidence), _peaks(evidence)
    rests = [
        peaks[rank]["used"] - peaks[rank]["reserved_end"] - before - context
        for rank, (before, context) in contexts.items()
        if rank in peaks and peaks[rank].get("used") is not None and peaks[rank].get("reserved_end") is not None
    ]
    if not rests:
        return Missing(_NO_GPU if evidence.plan.device == "cpu" else "needs the context, and what is used and reserved after the last step")
    return exact("gpu.memory.libraries", max(max(rests), 0.0), "used less reserved after the last step, less context and what was there before; NVML")


def _categories(evidence: Evidence) -> Values:
    names = [name for name, known in QUANTITIES.items() if known.measured.startswith("torch.cuda memory history")]
    reason = _NO_GPU if evidence.plan.device == "cpu" else "the allocator's history, which slows each step, was not recorded"
    return dict.fromkeys(names, Missing(reason))


def _host(evidence: Evidence) -> Values:
    found: Values = {"host.memory.capacity": Missing("the system does not say")}
    total = evidence.plan.about.get("host", {}).get("capacity")
    if total:
        found["host.memory.capacity"] = exact("host.memory.capacity", total, "/proc/meminfo MemTotal")
    times, used = evidence.curve("host", "memory.used")
    if not used.size:
        reason = Missing(evidence.reason("host", "memory.used"))
        return found | {"host.memory.used.peak": reason, "host.memory.base": reason}
    _, source, _ = evidence.origin("host", "memory.used")
    found["host.memory.used.peak"] = exact("host.memory.used.peak", used.max(), f"{source}, each second")
    return found | {"host.memory.base": _base(evidence, times, used)}


def _base(evidence: Evidence, times: Any, used: Any) -> Value | Missing:
    ready = [evidence.seconds(lines[0]["t"]) for lines in evidence.facts("ready").values()]
    before = used[times <= max(ready)] if ready else used[:0]
    if not before.size:
        return Missing("no sample was taken before the first tensor")
    return exact("host.memory.base", before[-1], "memory in use at the last second before the model was made")


def _pinned_and_pageable(evidence: Evidence) -> Values:
    peaks, ready = _peaks(evidence), evidence.facts("ready")
    why = Missing(_NOT_OURS if evidence.plan.command is not None else f"no rank came so far as to say: {evidence.outcome.said}")
    found: Values = {"host.memory.pinned.peak": why, "host.memory.pageable.peak": why}
    pinned = _sum(line.get("pinned") for line in peaks.values())
    if pinned is not None:
        found["host.memory.pinned.peak"] = exact("host.memory.pinned.peak", pinned, "torch.cuda.host_memory_stats, summed over the node's ranks")
    elif peaks and evidence.plan.device == "cpu":
        found["host.memory.pinned.peak"] = Missing("without a GPU nothing is pinned")
    grown = _sum(line["rss_peak"] - ready[rank][0]["rss"] for rank, line in peaks.items() if rank in ready)
    if grown is not None:
        basis = "peak resident set of each rank, less that before the model, less pinned memory, summed"
        found["host.memory.pageable.peak"] = exact("host.memory.pageable.peak", max(grown - (pinned or 0), 0), basis)
    return found


def _sum(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return float(sum(known)) if known else None
