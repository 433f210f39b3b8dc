"""What the time replay puts into a Run: its 20 ms series, and tables of what the step consists of."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from membound.cost.laws import LAWS, law_of
from membound.cost.resources import RESOURCES
from membound.replay.outside import ranks_on_node
from membound.replay.predict_time import Timing
from membound.replay.series import Course
from membound.replay.step import Played
from membound.run.series import CURVE_TABLE, GPU_PERIOD, HOST_PERIOD, MARK_TABLE
from membound.trace.schema import KIND

Floats = npt.NDArray[np.float64]


def time_tables(timing: Timing, used: float, reserved: float, host_used: float) -> dict[str, pa.Table]:
    """`gpu`, `host`, `marks` and `curves` as `membound.run.series` has them, `time.resources` and `time.families`.

    Args: `used`, `reserved` GPU memory once the allocator has settled, `host_used` of the node, B.
    """
    played, ran, machine = timing.played, timing.course, timing.machine
    bins = len(timing.power)
    hbm = ran.rate("read") + ran.rate("written")
    columns = {
        "busy": np.minimum(ran.rate("busy"), 1.0), "hbm.read": ran.rate("read"), "hbm.write": ran.rate("written"),
        "hbm.utilisation": np.minimum(hbm / machine.gpu.hbm.bandwidth, 1.0), "memory.used": np.full(bins, used),
        "memory.reserved": np.full(bins, reserved), "power": timing.power, "clock.core": timing.clock,
        "clock.memory": np.full(bins, machine.gpu.hbm.clock), "temperature.gpu": timing.die, "temperature.hbm": timing.memory,
        "pcie.h2d": ran.rate("h2d"), "pcie.d2h": ran.rate("d2h"), "nvlink.sent": ran.rate("nvlink"),
    }  # fmt: skip
    gpu = {"time": np.arange(bins) * GPU_PERIOD, "gpu": np.zeros(bins, np.int32)} | columns
    host = _host_series(timing, host_used)
    return {
        "gpu": pa.table(gpu),
        "host": pa.table(host),
        "marks": _marks(ran),
        "curves": _curves(columns, host),
        "time.resources": pa.table({"resource": list(RESOURCES), "share": [played.sensitivity[name] for name in RESOURCES]}),
        "time.families": _families(played),
    }


def _host_series(timing: Timing, host_used: float) -> dict[str, Floats]:
    machine, ran = timing.machine, timing.course
    ranks = ranks_on_node(timing.played.work.program.trace, machine)
    cores = machine.host.sockets * machine.host.cores_per_socket
    group = round(HOST_PERIOD / GPU_PERIOD)
    count = max(len(ran.bins) // group, 1)

    def each(name: str) -> Floats:
        rate = ran.rate(name)
        return np.asarray(rate[: count * group].reshape(count, -1).mean(axis=1) if len(rate) >= group else rate.mean(keepdims=True))

    return {
        "time": np.arange(count) * HOST_PERIOD, "node": np.zeros(count, np.int32),
        "cpu.utilisation": np.minimum(ranks * (1 + each("cores") * machine.host.cores_of(ranks)) / cores, 1.0),
        "memory.used": np.full(count, host_used), "memory.bandwidth": each("dimms") * ranks,
    }  # fmt: skip


def _marks(ran: Course) -> pa.Table:
    columns = {name: [getattr(mark, name) for mark in ran.marks] for name in ("start", "end", "kind", "step", "micro")}
    names = ["optimizer" if kind == "phase" else kind for kind in columns["kind"]]
    return pa.table(columns | {"rank": [0] * len(names), "name": names}, schema=MARK_TABLE)


_SOURCES: Final = {
    "busy": "timeline of the captured kernels", "hbm": "operands of captured kernels through a model of the L2",
    "memory": "replay of PyTorch's allocator", "power": "energy per operation and byte", "clock": "the machine, and the board's power limit",
    "temperature": "first-order heat sink",
    "pcie": "captured copies", "nvlink": "captured collectives", "cpu": "launching cores and host work",
}  # fmt: skip


def _curves(gpu: dict[str, Floats], host: dict[str, Floats]) -> pa.Table:
    named = [("gpu", name, GPU_PERIOD) for name in gpu] + [("host", name, HOST_PERIOD) for name in host if name not in {"time", "node"}]
    rows = [
        {"table": table, "curve": name, "tier": "law", "source": _SOURCES[name.split(".")[0]], "period": period, "missing": 0, "reason": None}
        for table, name, period in named
    ]
    return pa.Table.from_pylist(rows, schema=CURVE_TABLE)


_OTHERS: Final = ("collective", "copy_h2d", "copy_d2h", "host")


def _families(played: Played) -> pa.Table:
    """Seconds, HBM bytes and FLOPs of a step by family of kernels and by kind of what is none, as if they ran one after the other."""
    program, work = played.work.program, played.work
    law = np.array([law_of(name) for name in program.trace.header.ops])[program.op]
    seconds, moved = played.prices.table[0, played.prices.index], work.read + work.written
    # Laws first, then kinds of what is no kernel, then the rest.
    kinds = {KIND[kind]: len(LAWS) + number for number, kind in enumerate(_OTHERS)}
    group = np.array([kinds.get(kind, len(LAWS) + len(kinds)) for kind in range(len(KIND))])[program.kind]
    group = np.where(program.kind == KIND["kernel"], law, group)
    sums = (np.bincount(group, played.in_a_step(each), len(LAWS) + len(kinds) + 1).tolist() for each in (seconds, moved, work.flops))
    names = (*(each.family for each in LAWS[:-1]), "unknown", *_OTHERS, "")
    rows = [(name, time, *((0.0, 0.0) if name in _OTHERS else (hbm, flops))) for name, time, hbm, flops in zip(names, *sums, strict=True) if name]
    columns = zip(*(row for row in rows if row[1] > 0.0), strict=True)
    return pa.table({name: pa.array(column) for name, column in zip(("family", "seconds", "hbm", "flops"), columns, strict=True)})
