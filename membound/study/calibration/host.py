"""What a profile says that the host pays for each call, from rows of host time; kinds of call that have no rows keep the reference's price."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from membound.study.calibration.calls import Row, number

# Kernels that backward launches for each node of the measured chains (membound/measure/calibrate/host.py), a gradient added to the one before
# included, and views that it makes: PyTorch's derivatives.yaml, mul, mm, silu.
_NODES: Final[Mapping[str, tuple[int, int]]] = {
    "backward node mul by a number": (1, 0),
    "backward node silu": (1, 0),
    "backward node mul": (3, 0),
    "backward node mm": (3, 2),
    "backward node linear": (3, 4),
}
# Operands that AdamW's multi-tensor calls have for each parameter, read and written: 23 over mul_ twice, lerp_, addcmul_, sqrt, div_, add_, addcdiv_
# and the step's own add_ (counted in PyTorch 2.13).
_OPERANDS: Final = 23
_VIEWS: Final = ("aten.view.default", "aten.transpose.int")


def launch_prices(rows: Iterable[Row], reference: Mapping[str, float]) -> tuple[dict[str, float], tuple[str, ...]]:
    """Host seconds by kind of call (`membound.cost.launch.KINDS`), and the kinds whose price is the reference's."""
    host = [row for row in rows if row["family"] == "host" and number(row, "seconds_warm") is not None]
    found = {kind: price(host) for kind, price in _PRICES.items()}
    prices = {kind: float(f"{value:.3g}") for kind, value in found.items() if value is not None and value > 0}
    return {**reference, **prices}, tuple(kind for kind in reference if kind not in prices)


def _times(host: Sequence[Row], notes: str, *ops: str) -> list[float]:
    """Seconds of the rows of `ops` whose notes end with `notes`."""
    return [float(row["seconds_warm"]) for row in host if row["op"] in ops and row["notes"].endswith(notes)]


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _kernel(host: Sequence[Row]) -> float | None:
    """Operators that launch one kernel, called from Python with autograd on."""
    # Those on integers leave nothing for autograd to do.
    others = (*_VIEWS, "aten.empty.memory_format", "aten.copy_.default", "aten.zero_.default")
    ops = [row["op"] for row in host if row["op"].startswith("aten.") and row["op"] not in others and "_foreach_" not in row["op"]]
    return _median(_times(host, "autograd on", *ops))


def _backward(host: Sequence[Row]) -> float | None:
    """Time of all chains over all their kernels, views set aside."""
    view = _median(_times(host, "autograd off", *_VIEWS)) or 0.0
    nodes = [(float(row["seconds_warm"]), *_NODES[row["op"]]) for row in host if row["op"] in _NODES]
    return sum(seconds - views * view for seconds, _, views in nodes) / sum(kernels for _, kernels, _ in nodes) if nodes else None


def _tensor(host: Sequence[Row]) -> float | None:
    """Of a step over 400 tensors, what it takes longer than one over 100."""
    few, many = (_times(host, f"{count} tensors", "AdamW.step foreach") for count in (100, 400))
    return (many[0] - few[0]) / 300 / _OPERANDS if few and many else None


def _event(host: Sequence[Row]) -> float | None:
    times = _times(host, "", "event record", "event wait")
    return statistics.mean(times) if times else None


_PRICES: Final[Mapping[str, Callable[[Sequence[Row]], float | None]]] = {
    "kernel": _kernel,
    "backward": _backward,
    "view": lambda host: _median(_times(host, "autograd on", *_VIEWS)),
    "view_backward": lambda host: _median(_times(host, "autograd off", *_VIEWS)),
    "module": lambda host: next((float(row["seconds_warm"]) for row in host if row["op"] == "nn.Module call" and not row["notes"]), None),
    "tensor": _tensor,
    "event": _event,
    "copy": lambda host: _median(_times(host, "not waited for", "copy_h2d")),
    "sync": lambda host: _median(_times(host, "", ".item()")),
}
