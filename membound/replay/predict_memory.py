"""What the memory replay puts into a Run: values with their bands, and tables."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from membound.cost.context import Band
from membound.cost.host_base import host_base
from membound.replay.outside import outside, ranks_on_node
from membound.replay.result import Curve, GpuMemory, HostMemory, Memory
from membound.run.schema import Fits, Missing, Value
from membound.spec.machine import Machine
from membound.trace.schema import PHASE, PHASES, Trace

# Assumed widths of the bands; they are what validation against measured runs is there to judge.
_ALLOCATED = 0.02
_CATEGORY = 0.05
_RESERVED_LOW, _RESERVED_HIGH = 0.03, 0.08
# Where rows differ in length their order decides: three random orders (`Lengths.draws`, seeds 0 to 2, 64 micro-batches at most) of five Jobs of
# validation/h200 reserved, replayed, 0.83 to 1.24 of what the Program's order does.
_ORDER_LOW, _ORDER_HIGH = 0.17, 0.24
_PINNED = 0.05
_PAGEABLE = 0.15


def memory_values(memory: Memory, trace: Trace, machine: Machine) -> dict[str, Value | Missing]:
    """The values of a Run that memory alone decides, by quantity name."""
    counted = {"model.parameters": trace.header.parameters, "model.parameters.trained": trace.header.trained}
    return {
        **_gpu(memory.gpu, trace, machine),
        **_host(memory.host, trace, machine),
        **{name: Value(float(count), "parameter", float(count), float(count), "counted in the model") for name, count in counted.items()},
    }


def memory_fits(memory: Memory) -> Fits:
    """The verdict on both memories."""
    reasons = [why for why in (memory.gpu.why, memory.host.why) if why is not None]
    return Fits(memory.gpu.fits, memory.host.fits, "; and ".join(reasons) or None)


def memory_tables(memory: Memory, trace: Trace) -> dict[str, pa.Table]:
    """`memory.timeline` (each captured allocation and free), `memory.holdings` (what is alive at the peak), `host.memory.holdings`."""
    holdings = memory.gpu.holdings
    fields = {"category": pa.string(), "module": pa.string(), "line": pa.string(), "nbytes": pa.int64(), "blocks": pa.int64()}
    columns = {name: pa.array([getattr(holding, name) for holding in holdings], kind) for name, kind in fields.items()}
    columns["nbytes_B"] = columns.pop("nbytes")
    host = memory.host.by_category
    return {
        "memory.timeline": _timeline(memory.gpu.curve, trace),
        "memory.holdings": pa.table(columns),
        "host.memory.holdings": pa.table({"category": pa.array(host, pa.string()), "nbytes_B": pa.array(host.values(), pa.int64())}),
    }


def _gpu(gpu: GpuMemory, trace: Trace, machine: Machine) -> dict[str, Value | Missing]:
    around = outside(trace, machine)
    allocated = _within(gpu.allocated_peak, _ALLOCATED, _ALLOCATED, "captured allocations; kernels' own scratch memory is not all known")
    reserved = _reserved(gpu)
    # What is reserved cannot be less than what is allocated.
    reserved = _bytes(gpu.reserved_peak, max(reserved.low, min(allocated.low, gpu.reserved_peak)), reserved.high, reserved.basis)
    managed = gpu.used_peak - gpu.reserved_peak - gpu.context - gpu.libraries
    used = _bytes(
        gpu.used_peak,
        reserved.low + around.context.low + around.libraries.low + managed,
        reserved.high + around.context.high + around.libraries.high + managed,
        "reserved, CUDA context and NCCL's buffers; the last two from published readings, which differ by driver and toolkit",
    )
    share = [bound / gpu.capacity for bound in (used.value, used.low, used.high)]
    by_category = {
        f"gpu.memory.{name}": _within(nbytes, _CATEGORY, _CATEGORY, "captured storages alive at the allocated peak")
        for name, nbytes in gpu.at_peak.items()
    }
    return {
        "gpu.memory.allocated.peak": allocated,
        "gpu.memory.active.peak": _within(
            gpu.active_peak, _ALLOCATED, _RESERVED_HIGH, "as allocated, and deferred frees by the step's predicted times"
        ),
        "gpu.memory.reserved.peak": reserved,
        "gpu.memory.used.peak": used,
        "gpu.memory.context": _banded(around.context),
        "gpu.memory.libraries": _banded(around.libraries),
        "gpu.memory.capacity": _within(gpu.capacity, 0.0, 0.0, machine.gpu.hbm.source),
        "hbm.capacity.utilisation": Value(share[0], "1", share[1], share[2], "gpu.memory.used.peak over gpu.memory.capacity"),
        **by_category,
    }


def _reserved(gpu: GpuMemory) -> Value:
    if gpu.varied:
        basis = "PyTorch's allocator replayed over rows at the cap and as they differ, whichever takes more; fragments depend on the rows' order"
        return _within(gpu.reserved_peak, _ORDER_LOW, _ORDER_HIGH, basis)
    basis = "PyTorch's allocator replayed; fragments depend on when streams pass their events and on the driver's addresses"
    return _within(gpu.reserved_peak, _RESERVED_LOW, _RESERVED_HIGH, basis)


def _host(host: HostMemory, trace: Trace, machine: Machine) -> dict[str, Value | Missing]:
    base = host_base(ranks_on_node(trace, machine))
    tensors = host.used_peak - host.base
    used = _bytes(
        host.used_peak, tensors * (1 - _PAGEABLE) + base.low, tensors * (1 + _PAGEABLE) + base.high,
        "captured host tensors of all ranks of a node, system and processes; the last two are assumptions",
    )  # fmt: skip
    return {
        "host.memory.used.peak": used,
        "host.memory.pinned.peak": _within(host.pinned_peak, _PINNED, _PINNED, "PyTorch's pinned allocator replayed, times the node's ranks"),
        "host.memory.pageable.peak": _within(
            host.pageable_peak, _PAGEABLE, _PAGEABLE, "captured host tensors, times the node's ranks; loaders may copy more than was captured"
        ),
        "host.memory.base": _banded(base),
        "host.memory.capacity": _within(host.capacity, 0.0, 0.0, machine.host.source),
    }


def _within(nbytes: float, below: float, above: float, basis: str) -> Value:
    return _bytes(nbytes, nbytes * (1 - below), nbytes * (1 + above), basis)


def _bytes(nbytes: float, low: float, high: float, basis: str) -> Value:
    return Value(float(nbytes), "B", float(low), float(high), basis)


def _banded(band: Band) -> Value:
    return _bytes(band.nominal, band.low, band.high, band.source)


def _timeline(curve: Curve, trace: Trace) -> pa.Table:
    rows = trace.instructions
    at = curve.instruction
    between = (rows["step"] < 0) & (np.maximum.accumulate(rows["step"]) >= 0) if len(trace) else np.empty(0, np.bool_)
    codes = np.where(between, PHASE["other"], rows["phase"])[at]
    phases = pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), pa.array(PHASES))
    columns = {
        "instruction": pa.array(at),
        "phase": phases,
        "step": pa.array(rows["step"][at]),
        "micro": pa.array(rows["micro"][at]),
        "allocated_B": pa.array(curve.allocated),
        "reserved_B": pa.array(curve.reserved),
    }
    return pa.table(columns | {f"{name}_B": pa.array(values) for name, values in curve.by_category.items()})
