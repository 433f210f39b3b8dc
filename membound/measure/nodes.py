"""One Run of several nodes' Runs: ranks and GPUs numbered through, all times on one clock.

Each node samples itself by its own monotonic clock. All ranks of a Job leave the same barriers, several times over, and note when: by the
median of the differences the clocks are laid over each other, as well as the network lets a barrier be left at once (well under a grid tick).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from membound.errors import InputError, RecordError, UnlikeError
from membound.run.quantities import QUANTITIES
from membound.run.schema import Fits, Missing, Run, Value

# What all nodes do together, and what is of all GPUs.
_SUMS: Final = ("samples.rate",)
# A peak is that of the worst GPU or node; a step takes as long as it does on the slowest node.
_WORST: Final = (".peak", "step.time", "gpu.memory.", "host.memory.")


def merge(runs: Sequence[Run]) -> Run:
    """The Runs of all nodes of one Job as one. Times count from the start of the first node's Run.

    Raises `InputError` for less than two Runs, `UnlikeError` if they are not of the same Job or not of nodes 0 to N - 1, `RecordError` where
    the nodes never met.
    """
    if len(runs) < 2:
        raise InputError("--merge", len(runs), "name the runs of all nodes: two or more")
    ordered = sorted(runs, key=_node)
    _check(ordered)
    shifts = [_shift(ordered[0], run) for run in ordered]
    first = ordered[0]
    tables = _tables(ordered, shifts)
    about = {**first.about, "nodes": [{"node": _node(run), "clock_shift_s": shift, **_told(run)} for run, shift in zip(ordered, shifts, strict=True)]}
    about["ranks"] = {rank: line for run in ordered for rank, line in run.about["ranks"].items()}
    machine = {**first.machine, "nodes": len(ordered)}
    values = {name: _value(name, [run.values[name] for run in ordered]) for name in QUANTITIES if all(name in run.values for run in ordered)}
    return dataclasses.replace(first, machine=machine, fits=_fits([run.fits for run in ordered]), values=values, tables=tables, about=about)


def _node(run: Run) -> int:
    try:
        return int(run.about["options"]["nodes"]["rank"])
    except (KeyError, TypeError):
        raise InputError("--merge", run.origin, "only measured runs of several nodes can be merged") from None


def _told(run: Run) -> dict[str, Any]:
    return {"ended": run.about["ended"], "host": run.about.get("host")}


def _check(runs: Sequence[Run]) -> None:
    numbers = [_node(run) for run in runs]
    if numbers != list(range(len(runs))):
        raise UnlikeError(f"these runs are of the nodes {', '.join(map(str, numbers))}: one of each node from 0 on is needed")
    for run in runs[1:]:
        for key, value in runs[0].job.items():
            if run.job.get(key) != value:
                raise UnlikeError(f"nodes 0 and {_node(run)} ran different jobs: {key}: {value} against {run.job.get(key)}")


def _shift(first: Run, other: Run) -> float:
    """What is to be added to a time of `other` to have it on the clock of `first`, s."""
    if first is other:
        return 0.0
    theirs, ours = _meetings(other), _meetings(first)
    common = min(len(theirs), len(ours))
    if not common:
        raise RecordError(f"node {_node(other)} never met node 0: their clocks cannot be laid over each other")
    # Each node's earliest rank to leave a barrier: later ones were held up on their way.
    offset_ns = float(np.median(ours[:common].astype(np.float64) - theirs[:common].astype(np.float64)))
    return (int(other.about["epoch_ns"]) + offset_ns - int(first.about["epoch_ns"])) / 1e9


def _meetings(run: Run) -> Any:
    times = [moments for moments in run.about["meetings"].values() if moments]
    if not times:
        return np.empty(0, dtype=np.int64)
    shortest = min(len(moments) for moments in times)
    return np.min(np.array([moments[:shortest] for moments in times], dtype=np.int64), axis=0)


def _tables(runs: Sequence[Run], shifts: Sequence[float]) -> dict[str, pa.Table]:
    gpus = [_count(run) for run in runs]
    before = [sum(gpus[:at]) for at in range(len(runs))]
    found: dict[str, pa.Table] = {}
    for name in runs[0].tables:
        parts = [run.tables[name] for run in runs if name in run.tables]
        if name == "curves":
            found[name] = parts[0]
            continue
        change = _CHANGES.get(name, _as_it_is)
        moved = [change(_moved(table, shift), at, number) for table, shift, at, number in zip(parts, shifts, before, range(len(parts)), strict=False)]
        found[name] = pa.concat_tables(moved, promote_options="default")
    return found


def _count(run: Run) -> int:
    table = run.tables.get("gpu")
    return int(pc.max(table["gpu"]).as_py()) + 1 if table is not None and table.num_rows else 0


def _moved(table: pa.Table, shift: float) -> pa.Table:
    for name in ("time", "start", "end"):
        if name in table.column_names:
            at = table.column_names.index(name)
            table = table.set_column(at, name, pc.add(table[name], shift))
    return table


def _gpu_rows(table: pa.Table, before: int, node: int) -> pa.Table:
    return _renumbered(table, "gpu", pc.add(table["gpu"], pa.scalar(before, table["gpu"].type)))


def _host_rows(table: pa.Table, before: int, node: int) -> pa.Table:
    return _renumbered(table, "node", pa.array([node] * table.num_rows, table["node"].type))


def _process_rows(table: pa.Table, before: int, node: int) -> pa.Table:
    return table.append_column("node", pa.array([node] * table.num_rows, pa.int32()))


def _as_it_is(table: pa.Table, before: int, node: int) -> pa.Table:
    # Marks carry ranks, which are numbered over all nodes already.
    return table


def _renumbered(table: pa.Table, column: str, numbers: Any) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, numbers)


_CHANGES: Final[Mapping[str, Callable[[pa.Table, int, int], pa.Table]]] = {"gpu": _gpu_rows, "host": _host_rows, "processes": _process_rows}


def _value(name: str, values: Sequence[Value | Missing]) -> Value | Missing:
    known = [value for value in values if isinstance(value, Value)]
    if len(known) < len(values):
        node, missing = next((at, value) for at, value in enumerate(values) if isinstance(value, Missing))
        return Missing(f"node {node}: {missing.reason}")
    numbers = [value.value for value in known]
    if name in _SUMS:
        number, how = sum(numbers), "sum of the nodes"
    elif name.endswith(_WORST[0]) or name.startswith(_WORST[1:]):
        number, how = max(numbers), "worst node"
    else:
        number, how = float(np.mean(numbers)), "mean of the nodes"
    low, high = min(value.low for value in known), max(value.high for value in known)
    return Value(number, known[0].unit, min(low, number), max(high, number), f"{known[0].basis}; {how}")


def _fits(all_of: Sequence[Fits]) -> Fits:
    why = next((fits.why for fits in all_of if not (fits.gpu and fits.host)), next((fits.why for fits in all_of if fits.why), None))
    return Fits(all(fits.gpu for fits in all_of), all(fits.host for fits in all_of), why)
